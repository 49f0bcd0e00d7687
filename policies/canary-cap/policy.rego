# METADATA
# title: A canary stays small
# description: |
#   Behind one Service traffic follows ready pods, so the share of canary replicas is the share of users who meet the new
#   model first. All canaries of a model in a namespace count together, against all of its stable replicas; what is there may
#   stay and shrink, only growth is refused. A canary of the version that is stable already shows nothing.
# schemas:
# - input: schema.input
# custom:
#   action: Deny
#   needs: [peers]
#   scale: true
#   parameters:
#     percent: {minimum: 1, maximum: 100, format: integer, description: "of the stable replicas, rounded up"}
#     minimum: {minimum: 1, format: integer, description: "replicas that are always allowed"}
#   codes:
#     above-cap: The canaries of this model together would have more replicas than the cap. Set fewer, or scale the stable Deployment first.
#     same-version: The canary has the version that a stable Deployment of the model runs already, so it tries nothing.
#     no-stable: No Deployment of this model in the namespace is stable, so the cap is its least value. Mostly the label surefoot.dev/model differs.
#     unknown-track: The label surefoot.dev/track says neither stable nor canary, so the Deployment counts as stable and no cap holds for it.
package surefoot.canary_cap

import data.surefoot.lib

params := lib.params({"percent": 10, "minimum": 1})

deny contains finding if {
	is_canary
	here > before
	here + others > cap
	finding := {
		"code": "above-cap",
		"msg": sprintf("%d canary replicas against %d stable, the cap is %d", [here + others, stable, cap]),
		"path": "/spec/replicas",
		"fix": sprintf("set replicas to %d, or scale the stable Deployment first", [max([0, cap - others])]),
	}
}

deny contains finding if {
	is_canary
	here > 0
	version := lib.version(deployment)
	version != ""
	some peer in peers
	lib.track(peer) == "stable"
	lib.version(peer) == version
	finding := {
		"code": "same-version",
		"msg": sprintf("the canary is version %s, which %s runs as stable already, so it tries nothing", [version, peer.metadata.name]),
		"path": "/metadata/labels/app.kubernetes.io~1version",
		"fix": "give the canary the version that is to be tried, or scale it to 0",
	}
}

warn contains finding if {
	is_canary
	count([peer | some peer in peers; lib.track(peer) == "stable"]) == 0
	finding := {
		"code": "no-stable",
		"msg": sprintf("no stable Deployment of this model in the namespace, so the canary may have %d at most", [cap]),
		"path": "/metadata/labels/surefoot.dev~1model",
		"fix": "give the stable Deployment and its canary the same label surefoot.dev/model",
	}
}

warn contains finding if {
	track := deployment.metadata.labels["surefoot.dev/track"]
	track != "canary"
	track != "stable"
	input.context.via == "deployment" # whoever scales did not write it
	finding := {
		"code": "unknown-track",
		"msg": sprintf(`surefoot.dev/track is "%v", neither stable nor canary, so this counts as stable and no cap holds for it`, [track]),
		"path": "/metadata/labels/surefoot.dev~1track",
		"fix": "surefoot.dev/track: canary, or stable",
	}
}

deployment := input.request.object

is_canary if lib.track(deployment) == "canary"

here := lib.replicas(deployment)

# What this Deployment had as a canary of the same model: turning a stable one into a canary is growth from nothing.
before := lib.replicas(old) if {
	old := input.request.oldObject
	lib.track(old) == "canary"
	lib.model(old) == lib.model(deployment)
} else := 0

stable := replicas_of("stable")

others := replicas_of("canary")

cap := max([params.minimum, lib.percent_of(params.percent, stable)])

# An array, not a set: two peers with equal replicas must both count.
replicas_of(track) := sum([lib.replicas(peer) | some peer in peers; lib.track(peer) == track])

# Deployments of the same model in the same namespace, without this one; no model, no peers.
peers := [peer |
	lib.model(deployment) != ""
	peer := input.context.peers[_]
	lib.model(peer) == lib.model(deployment)
	not elsewhere(peer)
	not peer.metadata.name == input.request.name
]

elsewhere(peer) if peer.metadata.namespace != input.request.namespace
