# METADATA
# title: Probes that fit a model
# description: |
#   Without a readiness probe a container gets traffic before its model has loaded, and a rollout goes on over the bodies of
#   pods that never answered. Without a liveness probe one that hangs stays. And a server that loads for minutes needs a
#   startup probe, or liveness restarts it until the end of time. The probes of well-known model servers are added where
#   the port is certain; liveness is only suggested, because a wrong one restarts what works.
# related_resources:
# - ref: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
#   description: The three probes
# schemas:
# - input: schema.input
# custom:
#   action: Deny
#   parameters:
#     ignoreContainers: {pattern: '^[^ ]+$', description: globs of container names that are not looked at}
#     servers:
#       description: "model servers of your own, before those that are known: {name: Bento, image: acme/bento-*, port: 3000, ready: /readyz, live: /livez, startup: 120}"
#       element:
#         required: [image, port, ready]
#         members:
#           name: {type: string, description: what messages call it}
#           image: {type: string, pattern: '^([^ ]+/)?[^ /:@]+$', description: "glob on the name of the image, without tag and digest"}
#           tag: {type: string, description: glob on the tag}
#           port: {type: number, format: integer, minimum: 1, maximum: 65535, description: what it answers health checks on}
#           others: {element: {type: number, format: integer, minimum: 1, maximum: 65535}, description: "ports of other kinds, never asked by HTTP"}
#           ready: {type: string, pattern: '^/', description: path that answers 200 once the model is loaded}
#           live: {type: string, pattern: '^/', description: path that answers 200 as long as the process is sound}
#           startup: {type: number, minimum: 0, description: seconds that loading may well take}
#           suggest: {type: string, description: why probes are suggested and never added}
#           loopback: {type: boolean, description: it listens on localhost unless an argument or variable has 0.0.0.0}
#   codes:
#     no-readiness: "The container has no readinessProbe: it gets traffic before the model has loaded, and Kubernetes takes it for good."
#     no-liveness: "The container has no livenessProbe: nothing restarts it when it hangs."
#     no-startup: A container that loads for long has no startupProbe, so its liveness probe may restart it while it still loads.
#     unknown-port: A probe asks a port by a name that its container does not declare, so it can never succeed.
#     startup-budget: The startup probe allows more time than progressDeadlineSeconds, so a rollout counts as failed while it may still load.
#     one-handler: "Liveness asks the same as readiness and gives up no later: a busy container is restarted instead of being left alone."
package surefoot.probes

import data.surefoot.lib
import data.surefoot.model_servers
import data.surefoot.quantity

params := lib.params({"ignoreContainers": [], "servers": []})

deny contains finding if {
	container := containers[index]
	not container.readinessProbe.httpGet.port # the usual kind; the others take a closer look
	not lib.probed(container, "readinessProbe")
	not is_ignored(container)
	finding := {
		"code": "no-readiness",
		"msg": sprintf("%s has no readinessProbe, so it gets traffic before the model has loaded", [called(container)]),
		"path": lib.pointer("containers", index, ["readinessProbe"]),
		"fix": sprintf("readinessProbe: {%s}%s", question(container, "ready")),
	}
}

deny contains finding if {
	container := containers[index]
	not container.livenessProbe.httpGet.port # the usual kind; the others take a closer look
	not lib.probed(container, "livenessProbe")
	not is_ignored(container)
	finding := {
		"code": "no-liveness",
		"msg": sprintf("%s has no livenessProbe, so nothing restarts it when it hangs", [called(container)]),
		"path": lib.pointer("containers", index, ["livenessProbe"]),
		"fix": sprintf("livenessProbe: {%s, failureThreshold: 6}%s", question(container, "live")),
	}
}

# A port that is named must be declared by this container. Numbers are not judged: the containers of a pod share a network.
deny contains finding if {
	some_ask_by_name
	container := containers[index]
	some probe in ["readinessProbe", "livenessProbe", "startupProbe"]
	port := container[probe][handler].port
	port > "" # a text; numbers come before
	not declares(container, port)
	not is_ignored(container)
	declared := {name | name := container.ports[_].name; is_string(name)}
	finding := {
		"code": "unknown-port",
		"msg": sprintf(
			`the %s of %s asks port "%s", but the container declares no port of that name`,
			[probe, called(container), port],
		),
		"path": lib.pointer("containers", index, [probe, handler, "port"]),
		"fix": port_fix(port, declared),
	}
}

warn contains finding if {
	some_may_be_slow
	container := containers[index]
	not container.startupProbe.httpGet.port
	not lib.probed(container, "startupProbe")
	[reason, seconds] := slow(container)
	not is_ignored(container)
	[asked, remark] := question(container, "ready")
	finding := {
		"code": "no-startup",
		"msg": sprintf(
			`%s %s and has no startupProbe, so liveness may restart it while the model still loads`,
			[called(container), reason],
		),
		"path": lib.pointer("containers", index, ["startupProbe"]),
		"fix": sprintf("startupProbe: {%s, periodSeconds: 10, failureThreshold: %d}%s", [asked, tens(seconds), remark]),
	}
}

warn contains finding if {
	container := containers[_]
	probe := container.startupProbe
	budget := lib.patience(probe)
	budget > deadline
	lib.probed(container, "startupProbe")
	not is_ignored(container)
	needed := budget + lib.number(input.request.object.spec, "minReadySeconds", 0)
	finding := {
		"code": "startup-budget",
		"msg": sprintf(
			`%s may take %d s to start, but the rollout counts as failed after %d s`,
			[called(container), budget, deadline],
		),
		"path": "/spec/progressDeadlineSeconds",
		"fix": sprintf("progressDeadlineSeconds: %d", [lib.with_a_fifth(needed)]),
	}
}

warn contains finding if {
	container := containers[index]
	not other_path(container) # mostly it is another one
	same_question(container)
	not is_ignored(container)
	kills := lib.patience(container.livenessProbe)
	kills <= lib.patience(container.readinessProbe)
	finding := {
		"code": "one-handler",
		"msg": sprintf(
			"%s: liveness asks the same as readiness and kills after %d s, no later than readiness gives up; a busy model will be restarted",
			[called(container), kills],
		),
		"path": lib.pointer("containers", index, ["livenessProbe"]),
		"fix": "give livenessProbe a lighter question, or twice the failureThreshold of readinessProbe",
	}
}

defaults contains entry if {
	container := containers[index]
	some probe in ["readinessProbe", "startupProbe"]
	not container[probe].httpGet.port
	not lib.probed(container, probe)
	not is_ignored(container)
	server := server_of(container)
	port := model_servers.certain_port(container, server)
	entry := {
		"path": lib.pointer("containers", index, [probe]),
		"value": object.union({"httpGet": {"path": server.ready, "port": port}}, timing(probe, server)),
	}
}

# The model server that it runs, by its image.
server_of(container) := server if {
	input.parameters.servers # mostly there are none
	server := model_servers.own(container, params.servers)
} else := server if {
	server := model_servers.running(container)
}

deadline := lib.number(input.request.object.spec, "progressDeadlineSeconds", 600)

called(container) := lib.called("containers", container)

# Regular ones; init containers, restartable or not, and ephemeral ones serve nobody.
containers := input.request.object.spec.template.spec.containers

ignored := lib.names_like(params.ignoreContainers)

# In a function of its own: `not` of a member that is absent is undefined in OPA.
is_ignored(container) if container.name in ignored

# A model that is busy answers late: five seconds rather than the API's one.
timing("readinessProbe", _) := {"timeoutSeconds": 5}

timing("startupProbe", server) := {"timeoutSeconds": 5, "periodSeconds": 10, "failureThreshold": tens(server.startup)}

tens(seconds) := max([1, ceil(seconds / 10)])

# Why a container is expected to take its time, and for how many seconds.
slow(container) := [sprintf("runs %s", [server.name]), server.startup] if {
	server := server_of(container)
} else := ["asks for a GPU", 1800] if {
	amount := container.resources[_][resource]
	resource != "cpu" # they are most of them
	resource != "memory"
	quantity.is_gpu(resource)
	quantity.positive(amount)
}

# A quick look at all probes at once: most ask for a number.
some_ask_by_name if {
	probes := [container[probe] |
		container := containers[_]
		some probe in ["readinessProbe", "livenessProbe", "startupProbe"]
	]
	contains(json.marshal(probes), `"port":"`)
}

# A quick look at all that have no startup probe of the usual kind, which mostly is enough: `slow` takes a closer one.
some_may_be_slow if {
	input.parameters.servers # somebody's own
} else if {
	loaders := [container[key] |
		container := containers[_]
		not container.startupProbe.httpGet.port
		some key in ["image", "resources"]
	]
	model_servers.may_be_slow(json.marshal(loaders))
}

# What a probe should ask, and a remark where that can only be guessed.
question(container, kind) := [sprintf("httpGet: {path: %s, port: %v}", [path, port]), ""] if {
	server := server_of(container)
	path := server[kind]
	port := port_of(container, server)
} else := [sprintf("tcpSocket: {port: %v}", [port]), ""] if {
	server := server_of(container)
	port := port_of(container, server)
} else := [sprintf("httpGet: {path: %s, port: %v}", [guess.path, port]), guess.remark] if {
	guess := guesses[kind]
	port := first_port(container)
}

guesses := {
	"ready": {"path": "/ready", "remark": "  # the path that answers once the model is loaded"},
	"live": {"path": "/live", "remark": "  # a path that answers as long as the process is sound"},
}

port_of(container, server) := model_servers.certain_port(container, server)

port_of(container, server) := server.port if not model_servers.certain_port(container, server)

first_port(container) := container.ports[0].containerPort

first_port(container) := 8080 if not container.ports[0].containerPort

port_fix(port, declared) := sprintf("name a port that it declares: %s", [concat(", ", sort(declared))]) if {
	count(declared) > 0
} else := sprintf("ports: [{name: %s, containerPort: 8080}], with the number the server listens on", [port])

declares(container, port) if container.ports[_].name == port

# In a function of its own: `not` of a member that is absent is undefined in OPA.
other_path(container) if container.livenessProbe.httpGet.path != container.readinessProbe.httpGet.path

# Do liveness and readiness ask the same?
same_question(container) if {
	container.livenessProbe.httpGet.path == container.readinessProbe.httpGet.path
	same_handler(container, "httpGet")
} else if {
	container.livenessProbe.tcpSocket
	same_handler(container, "tcpSocket")
} else if {
	container.livenessProbe.grpc
	same_handler(container, "grpc")
} else if {
	container.livenessProbe.exec
	same_handler(container, "exec")
}

same_handler(container, kind) if {
	live := by_number(container, container.livenessProbe[kind])
	live == by_number(container, container.readinessProbe[kind])
}

# A port by its name is the same as by its number.
by_number(container, handler) := numbered if {
	is_object(handler)
	numbers := [port.containerPort | port := container.ports[_]; port.name == handler.port]
	numbered := object.union(handler, {"port": numbers[0]})
} else := handler
