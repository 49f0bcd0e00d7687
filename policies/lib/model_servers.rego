# METADATA
# title: Model servers
# description: |
#   What is known of the servers that people run models with. To add one that everybody has, add an entry below; one of your
#   own goes into the configuration, as an entry of the parameter `servers` of `probes`, with the same members.
package surefoot.model_servers

# By the organisation in the image's name, what follows the registry's host: `nvidia` for
# `nvcr.io/nvidia/tritonserver:24.05-py3`, and for a mirror of it at `registry.local/mirror/nvidia/tritonserver:24.05-py3`.
#
#   image    glob on organisation and name
#   tag      glob on the tag, where that tells more; "" is an image by its digest alone, or by nothing
#   port     what the server answers health checks on, unless it is told otherwise
#   others   ports of other kinds (gRPC, metrics), never asked by HTTP
#   ready    path that answers 200 once the model is loaded
#   live     path that answers 200 as long as the process is sound
#   startup  seconds that loading may well take
#   suggest  why probes are suggested and never added
#   loopback listens on localhost, where no probe reaches it, unless an argument or variable has 0.0.0.0
servers := {
	"nvidia": [{
		"name": "Triton", "image": "nvidia/tritonserver", "port": 8000, "others": [8001, 8002, 9000],
		"ready": "/v2/health/ready", "live": "/v2/health/live", "startup": 300,
	}],
	"vllm": [{
		"name": "vLLM", "image": "vllm/vllm-openai*", "port": 8000,
		"ready": "/health", "live": "/health", "startup": 1800,
	}],
	"rocm": [{
		"name": "vLLM", "image": "rocm/vllm*", "port": 8000,
		"ready": "/health", "live": "/health", "startup": 1800,
	}],
	"llm-d": [{
		"name": "vLLM", "image": "llm-d/llm-d-cuda*", "port": 8000,
		"ready": "/health", "live": "/health", "startup": 1800,
	}],
	"huggingface": [{
		"name": "Text Generation Inference", "image": "huggingface/text-generation-inference", "port": 80,
		"ready": "/health", "live": "/health", "startup": 1800,
	}],
	"pytorch": [{
		"name": "TorchServe", "image": "pytorch/torchserve*", "port": 8080, "others": [8081, 8082, 7070, 7071],
		"ready": "/ping", "live": "/ping", "startup": 300, "loopback": true,
	}],
	"tensorflow": [{
		"name": "TensorFlow Serving", "image": "tensorflow/serving", "port": 8501, "others": [8500],
		"ready": "/v1/models/NAME", "startup": 300, "suggest": "its only health path holds the name of the model",
	}],
	"seldonio": [
		{
			"name": "MLServer", "image": "seldonio/mlserver*", "port": 8080, "others": [8081, 8082],
			"ready": "/v2/health/ready", "live": "/v2/health/live", "startup": 300,
		},
		{
			"name": "Seldon Core", "image": "seldonio/seldon-core-executor*", "port": 8000,
			"ready": "/ready", "live": "/live", "startup": 600, "suggest": "its images differ in port and path",
		},
		{
			"name": "Seldon Core", "image": "seldonio/*", "port": 9000,
			"ready": "/health/status", "live": "/health/ping", "startup": 600, "suggest": "its images differ in port and path",
		},
	],
	"kserve": [{
		"name": "KServe", "image": "kserve/*server", "port": 8080, "others": [8081],
		"ready": "/v2/health/ready", "live": "/v2/health/live", "startup": 600,
	}],
	"rayproject": [{
		"name": "Ray Serve", "image": "rayproject/ray*", "port": 8000,
		"ready": "/-/healthz", "live": "/-/healthz", "startup": 600, "suggest": "its image also runs heads and workers",
	}],
	"ollama": [{
		"name": "Ollama", "image": "ollama/ollama", "port": 11434,
		"ready": "/", "live": "/", "startup": 300,
	}],
	"lmsysorg": [{
		"name": "SGLang", "image": "lmsysorg/sglang", "port": 30000,
		"ready": "/health", "live": "/health", "startup": 1800,
	}],
	"nim": [{
		"name": "NVIDIA NIM", "image": "nim/*/*", "port": 8000,
		"ready": "/v1/health/ready", "live": "/v1/health/live", "startup": 1800,
	}],
	"ggml-org": [
		{
			"name": "llama.cpp", "image": "ggml-org/llama.cpp", "tag": "server*", "port": 8080,
			"ready": "/health", "live": "/health", "startup": 600, "loopback": true,
		},
		{
			"name": "llama.cpp", "image": "ggml-org/llama.cpp", "tag": "", "port": 8080,
			"ready": "/health", "live": "/health", "startup": 600, "suggest": "only the tag says whether it is the server",
		},
	],
	"openvino": [{
		"name": "OpenVINO Model Server", "image": "openvino/model_server*", "port": 8000, "others": [9000],
		"ready": "/v2/health/ready", "live": "/v2/health/live", "startup": 600,
		"suggest": "it has no REST port unless a flag opens one",
	}],
}

# The organisations above, each as a step of an image's name, and how JSON has the name of a GPU. Most containers have none of
# them, and this says so without a look at the entries.
signs := `(^|["/])(nvidia|vllm|rocm|llm-d|huggingface|pytorch|tensorflow|seldonio|kserve|rayproject|ollama|lmsysorg|nim|ggml-org|openvino)/|/gpu"|"nvidia[.]com/mig-`

# The server that a container runs, by its image; undefined where it is none of them. The first of its organisation wins.
running(container) := candidates[0] if {
	is_string(container.image)
	regex.match(signs, container.image)
	steps := split(container.image, "/")
	candidates := [server |
		some depth in [2, 3]
		start := count(steps) - depth
		some server in servers[steps[start]]
		[name, tag] := name_and_tag(steps[count(steps) - 1])
		glob.match(server.image, ["/"], concat("/", array.concat(array.slice(steps, start, count(steps) - 1), [name])))
		tagged(server, tag)
	]
}

# The first entry of one's own that fits: its glob is held against as many of the last steps of the image's name as it has
# itself. Where it leaves out `name` or `startup`, that is the glob, and 300; one without `image`, `port` or `ready` says too
# little, and is passed over.
own(container, entries) := candidates[0] if {
	entries[0] # mostly there are none
	is_string(container.image)
	steps := split(container.image, "/")
	[name, tag] := name_and_tag(steps[count(steps) - 1])
	candidates := [server |
		server := complete(entries[_])
		start := count(steps) - count(split(server.image, "/"))
		start >= 0
		glob.match(server.image, ["/"], concat("/", array.concat(array.slice(steps, start, count(steps) - 1), [name])))
		tagged(server, tag)
	]
}

complete(entry) := object.union({"name": entry.image, "startup": 300}, entry) if {
	is_string(entry.image)
	is_string(entry.ready)
	is_number(entry.port)
	is_number(object.get(entry, "startup", 300))
	is_string(object.get(entry, "tag", ""))
}

name_and_tag(reference) := [parts[0], concat("", array.slice(parts, 1, 2))] if {
	parts := split(split(reference, "@")[0], ":")
}

tagged(server, _) if not server.tag

tagged(server, tag) if glob.match(server.tag, null, tag)

# The port on which the container's server answers health checks; undefined where that is not certain: the container must
# declare the usual one, or exactly one TCP port, and not one that the server is known to use for something else.
certain_port(container, server) := port if {
	not server.suggest
	reachable(container, server)
	port := tcp_port(server, container)
}

# Its own port where the container declares it, else the only one, unless that is known or named to be for something else.
tcp_port(server, container) := server.port if {
	server.port in tcp_ports(container)
} else := port if {
	[port] := [number | some number in tcp_ports(container)]
	not port in object.get(server, "others", [])
	not is_named_otherwise(container, port)
}

tcp_ports(container) := {number |
	number := container.ports[i].containerPort
	object.get(container.ports[i], "protocol", "TCP") == "TCP"
}

is_named_otherwise(container, port) if {
	container.ports[i].containerPort == port
	name := container.ports[i].name
	is_string(name)
	regex.match(`^(grpc|metrics|prom|admin)`, name)
}

reachable(_, server) if not server.loopback

reachable(container, server) if {
	server.loopback
	some member in ["args", "command"]
	opens(container[member][_])
}

reachable(container, server) if {
	server.loopback
	opens(container.env[_].value)
}

opens(text) if {
	is_string(text)
	contains(text, "0.0.0.0")
}

# Is there a known server or a GPU in this JSON of images and resources? It may say yes where a closer look says no.
may_be_slow(text) if regex.match(signs, text)
