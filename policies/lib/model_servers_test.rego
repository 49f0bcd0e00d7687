package surefoot.model_servers_test

import data.surefoot.model_servers

name_of(image) := model_servers.running({"image": image}).name

images := {
	"nvcr.io/nvidia/tritonserver:24.05-py3": "Triton",
	"registry.local:5000/mirror/nvidia/tritonserver@sha256:0123": "Triton",
	"nvidia/tritonserver": "Triton",
	"vllm/vllm-openai:v0.11.0": "vLLM",
	"vllm/vllm-openai-cpu:v0.11.0": "vLLM",
	"rocm/vllm:latest": "vLLM",
	"ghcr.io/llm-d/llm-d-cuda:v0.3": "vLLM",
	"ghcr.io/huggingface/text-generation-inference:3.3": "Text Generation Inference",
	"pytorch/torchserve:0.12.0-gpu": "TorchServe",
	"pytorch/torchserve-kfs:0.12.0": "TorchServe",
	"tensorflow/serving:2.16.1": "TensorFlow Serving",
	"seldonio/mlserver:1.6.1": "MLServer",
	"seldonio/seldon-core-executor:1.18": "Seldon Core",
	"kserve/sklearnserver:v0.15": "KServe",
	"rayproject/ray-llm:2.46": "Ray Serve",
	"ollama/ollama:0.12": "Ollama",
	"lmsysorg/sglang:v0.5": "SGLang",
	"nvcr.io/nim/meta/llama-3.1-8b-instruct:1.8": "NVIDIA NIM",
	"ghcr.io/ggml-org/llama.cpp:server-cuda": "llama.cpp",
	"openvino/model_server:2025.3": "OpenVINO Model Server",
}

test_images if {
	wrong := {image: name | some image, name in images; not name_of(image) == name}
	wrong == {}
	count({name | some name in images}) == count({server.name | server := model_servers.servers[_][_]})
}

digest := "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

test_images_by_digest if {
	wrong := {written: name |
		some image, name in images
		bare := regex.replace(image, "(:[^/]*|@.*)$", "")
		some written in {concat("", [bare, digest]), concat("", ["registry.local:5000/mirror/", bare, digest])}
		not name_of(written) == name
	}
	wrong == {}
	with_tag := {image: name | some image, name in images; not name_of(concat("", [split(image, "@")[0], digest])) == name}
	with_tag == {}
	not name_of(concat("", ["ghcr.io/ggml-org/llama.cpp:full", digest]))
}

test_other_images if {
	others := [
		"registry.local/churn:2.4.0", "churn", "", "nvidia/cuda:12", "tritonserver:24.05", "kserve/storage-initializer:v0.15",
		"ghcr.io/ggml-org/llama.cpp:full", "nim/llama", "pytorch/pytorch:2.5", "notnvidia/tritonserver:1", "/", "a//b", "@", ":",
	]
	taken := [image | some image in others; name_of(image)]
	taken == []
	not model_servers.running({})
	not model_servers.running({"image": null})
	not model_servers.running("x")
}

own_name(image, entries) := model_servers.own({"image": image}, entries).name

test_own if {
	entry := {"image": "acme/bento-*", "port": 3000, "ready": "/readyz"}
	own_name("acme/bento-churn", [entry]) == "acme/bento-*"
	own_name("registry.local:5000/mirror/acme/bento-churn:2@sha256:0123", [entry]) == "acme/bento-*"
	not own_name("acme/churn", [entry])
	not own_name("acme/bento-x/churn", [entry])
	not own_name("bento-churn", [entry])
	not own_name("other/bento-churn", [entry])
	not own_name("acme/bento-churn", [])
	own_name("registry.local/churn:2", [{"image": "churn", "name": "ours", "port": 1, "ready": "/"}]) == "ours"
	own_name("a/b/c/d:1", [{"image": "*/c/d", "name": "deep", "port": 1, "ready": "/"}]) == "deep"
	tagged := object.union(entry, {"tag": "gpu-*"})
	own_name("acme/bento-churn:gpu-2", [tagged])
	not own_name("acme/bento-churn:2", [tagged])
	own_name("acme/bento-churn:gpu-2.1.0", [tagged])
	own_name("acme/bento-churn:2", [tagged, object.union(entry, {"name": "second"})]) == "second"
	model_servers.own({"image": "acme/bento-x"}, [entry]).startup == 300
	not model_servers.own({"image": null}, [entry])
	not model_servers.own({}, [entry])
}

port_of(container) := model_servers.certain_port(container, model_servers.running(container))

ports(image, numbers) := {"image": image, "ports": [{"containerPort": number} | some number in numbers]}

test_certain_ports if {
	port_of(ports("nvidia/tritonserver:1", [8001, 8000, 8002])) == 8000
	port_of(ports("nvidia/tritonserver:1", [8080])) == 8080
	not port_of(ports("nvidia/tritonserver:1", [8001]))
	not port_of(ports("nvidia/tritonserver:1", [8080, 9000]))
	not port_of(ports("nvidia/tritonserver:1", [9000]))
	port_of(ports("nvidia/tritonserver:1", [8080, 8080])) == 8080
	named := [name |
		some name in ["grpc", "grpc-web", "metrics", "admin", "http", "h2c", null]
		port_of({"image": "nvidia/tritonserver:1", "ports": [{"containerPort": 9999, "name": name}]})
	]
	named == ["http", "h2c", null]
	port_of({"image": "nvidia/tritonserver:1", "ports": [{"containerPort": 8000, "name": "grpc"}]}) == 8000
	not port_of(ports("nvidia/tritonserver:1", []))
	not port_of({"image": "nvidia/tritonserver:1"})
	not port_of({"image": "nvidia/tritonserver:1", "ports": null})
	udp := {"image": "nvidia/tritonserver:1", "ports": [{"containerPort": 8000, "protocol": "UDP"}, {"containerPort": 9999, "protocol": "TCP"}]}
	port_of(udp) == 9999
}

test_suggested_only if {
	not port_of(ports("tensorflow/serving:2.16.1", [8501]))
	not port_of(ports("openvino/model_server:2025.3", [8000]))
	not port_of(ports("seldonio/whatever:1", [9000]))
	model_servers.running(ports("seldonio/seldon-core-executor:1.18", [8000])).ready == "/ready"
	model_servers.running(ports("seldonio/sklearnserver:1.18", [9000])).ready == "/health/status"
}

test_localhost if {
	bare := ports("ggml-org/llama.cpp:server", [8080])
	not port_of(bare)
	port_of(object.union(bare, {"args": ["-m", "/m.gguf", "--host", "0.0.0.0"]})) == 8080
	port_of(object.union(bare, {"command": ["/app/llama-server", "--host=0.0.0.0"]})) == 8080
	port_of(object.union(bare, {"env": [{"name": "A", "valueFrom": {}}, {"name": "LLAMA_ARG_HOST", "value": "0.0.0.0"}]})) == 8080
	not port_of(object.union(bare, {"args": [null, 7, "--host", "127.0.0.1"], "env": "x"}))
}

# What every entry must have.
test_entries if {
	entries := {entry | entry := model_servers.servers[_][_]}
	incomplete := {entry.image |
		some entry in entries
		count({"name", "image", "port", "ready", "startup"} - object.keys(entry)) > 0
	}
	incomplete == set()
	{organisation | some organisation, listed in model_servers.servers; some one in listed; not startswith(one.image, concat("", [organisation, "/"]))} == set()
	{entry.name | some entry in entries; entry.startup % 10 != 0} == set()
}

test_every_organisation_is_looked_for if {
	every organisation, _ in model_servers.servers {
		regex.match(model_servers.signs, sprintf("%s/x", [organisation]))
		regex.match(model_servers.signs, sprintf("registry.local:5000/mirror/%s/x:1", [organisation]))
		not regex.match(model_servers.signs, sprintf("not%s/x", [organisation]))
	}
}
