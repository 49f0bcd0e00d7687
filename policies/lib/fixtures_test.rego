# What the tests of the policies start from: a model Deployment that every policy lets pass, with the API's defaults, and
# ways to make it worse with a JSON patch.
package surefoot.fixtures_test

create(patches) := {
	"request": {"operation": "CREATE", "namespace": "shop", "name": "churn", "object": json.patch(deployment, patches), "oldObject": null},
	"parameters": {},
	"context": {"via": "deployment", "peers": []},
}

# The old object is the good one with its own patches.
update(old, patches) := object.union(create(patches), {"request": {
	"operation": "UPDATE",
	"oldObject": json.patch(deployment, old),
}})

with_parameters(review, parameters) := object.union(review, {"parameters": parameters})

codes(findings) := {finding.code | some finding in findings}

paths(findings) := {finding.path | some finding in findings}

replace(path, value) := [{"op": "replace", "path": path, "value": value}]

add(path, value) := [{"op": "add", "path": path, "value": value}]

remove(path) := [{"op": "remove", "path": path}]

deployment := {
	"apiVersion": "apps/v1",
	"kind": "Deployment",
	"metadata": {"name": "churn", "namespace": "shop", "labels": {
		"app.kubernetes.io/name": "churn",
		"app.kubernetes.io/version": "2.4.0",
		"surefoot.dev/model": "churn",
	}},
	"spec": {
		"replicas": 4,
		"progressDeadlineSeconds": 600,
		"revisionHistoryLimit": 10,
		"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
		"selector": {"matchLabels": {"app.kubernetes.io/name": "churn"}},
		"template": {
			"metadata": {"labels": {"app.kubernetes.io/name": "churn", "app.kubernetes.io/version": "2.4.0"}},
			"spec": {
				"initContainers": [fetch],
				"containers": [model, proxy],
				"volumes": [{"name": "weights", "emptyDir": {}}],
				"terminationGracePeriodSeconds": 30,
			},
		},
	},
}

fetch := {
	"name": "fetch",
	"image": "registry.local:5000/tools/fetch:1.8.2",
	"resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "500m", "memory": "256Mi"}},
}

model := {
	"name": "model",
	"image": "nvcr.io/nvidia/tritonserver:24.05-py3",
	"ports": [
		{"name": "http", "containerPort": 8000, "protocol": "TCP"},
		{"name": "grpc", "containerPort": 8001, "protocol": "TCP"},
	],
	"resources": {
		"requests": {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"},
		"limits": {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"},
	},
	"startupProbe": probe({"httpGet": {"path": "/v2/health/ready", "port": "http", "scheme": "HTTP"}}, 10, 30),
	"readinessProbe": probe({"httpGet": {"path": "/v2/health/ready", "port": "http", "scheme": "HTTP"}}, 5, 3),
	"livenessProbe": probe({"httpGet": {"path": "/v2/health/live", "port": 8000, "scheme": "HTTP"}}, 10, 3),
}

proxy := {
	"name": "proxy",
	"image": "docker.io/envoyproxy/envoy:v1.31.0",
	"ports": [{"name": "public", "containerPort": 10000, "protocol": "TCP"}],
	"resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
	"readinessProbe": probe({"tcpSocket": {"port": "public"}}, 10, 3),
	"livenessProbe": probe({"exec": {"command": ["/bin/alive"]}}, 10, 6),
}

probe(handler, period, threshold) := object.union(handler, {
	"periodSeconds": period,
	"failureThreshold": threshold,
	"timeoutSeconds": 1,
	"successThreshold": 1,
})
