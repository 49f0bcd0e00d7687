# METADATA
# title: What policies share
# description: |
#   Nothing here fails on an odd object: a member of the wrong kind is read as absent. That is why lists are walked as
#   `list[i]`, which finds nothing in a text or in null, and not with `some .. in`, which is an error there. And policies
#   only call functions of it: to read one value of a package, the engine evaluates all of its values.
package surefoot.lib

# The parameters of a policy: its own defaults, and over them what the configuration says.
params(defaults) := object.union(defaults, object.get(input, "parameters", {}))

# The text node[key]; "" where there is none.
text(node, key) := value if {
	value := node[key]
	is_string(value)
} else := ""

# The number node[key], else the fallback.
number(node, key, fallback) := value if {
	value := node[key]
	is_number(value)
} else := fallback

# A label of an object; "" where it is absent, because an empty one says no more.
label(node, key) := value if {
	value := node.metadata.labels[key]
	is_string(value)
} else := ""

# The version that an object is labelled with.
version(node) := label(node, "app.kubernetes.io/version")

# The surefoot.dev/model of a Deployment: those of one namespace with the same model are peers.
model(deployment) := label(deployment, "surefoot.dev/model")

# `canary`, or `stable`, also when nothing is said.
track(deployment) := "canary" if {
	deployment.metadata.labels["surefoot.dev/track"] == "canary"
} else := "stable"

replicas(deployment) := value if {
	value := deployment.spec.replicas
	is_number(value)
} else := 1

# percent of n, rounded up in whole numbers: 10 percent of 30 are 3, where 30 * 0.1 is a little more.
percent_of(percent, n) := floor(((percent * n) + 99) / 100)

# The names of all containers of the template that one of the globs matches.
names_like(globs) := {name |
	some pattern in globs
	name := input.request.object.spec.template.spec[list][_].name
	list in {"containers", "initContainers", "ephemeralContainers"}
	is_string(name)
	is_string(pattern)
	glob.match(pattern, null, name)
}

# How a container is called in a message.
called(list, container) := sprintf(`%s "%s"`, [kinds[list], text(container, "name")])

kinds := {"containers": "container", "initContainers": "init container", "ephemeralContainers": "ephemeral container"}

# A member of a container of the template, as a JSON pointer.
pointer(list, index, keys) := concat("/", array.concat(
	["/spec/template/spec", list, sprintf("%v", [index])],
	[escaped(key) | some key in keys],
))

# A key within a JSON pointer.
escaped(key) := replace(replace(key, "~", "~0"), "/", "~1")

# Does the container have this probe, of any kind? One that asks nothing is none.
probed(container, probe) if {
	is_object(container[probe].httpGet)
} else if {
	is_object(container[probe][handler])
	handler in {"tcpSocket", "grpc", "exec"}
}

# For how many seconds a probe may fail, from the start of the container on, until the kubelet acts on it.
patience(probe) := seconds if {
	not probe.initialDelaySeconds
	is_number(probe.periodSeconds)
	is_number(probe.failureThreshold)
	seconds := probe.periodSeconds * probe.failureThreshold
} else := delay + (period * threshold) if {
	delay := number(probe, "initialDelaySeconds", 0)
	period := number(probe, "periodSeconds", 10)
	threshold := number(probe, "failureThreshold", 3)
}

# n and a fifth more, rounded up.
with_a_fifth(n) := floor(((n * 6) + 4) / 5)
