# METADATA
# title: A version that can be named
# description: |
#   Reports, denials and reverts speak of versions: the label `app.kubernetes.io/version`, on the Deployment and on its pod
#   template. It says something only if both agree and if it changes with the image of the model container: the one that
#   `kubectl.kubernetes.io/default-container` names, else the first.
# related_resources:
# - ref: https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/
#   description: Recommended labels
# schemas:
# - input: schema.input
# custom:
#   action: Deny
#   codes:
#     missing: The label app.kubernetes.io/version is missing or empty, on the Deployment or on its pod template.
#     differ: The Deployment and its pod template carry different versions.
#     unchanged: The image of the model container changed, the version did not.
#     in-selector: The selector holds the version, and a selector cannot be changed, so no other version can follow.
package surefoot.version_labels

import data.surefoot.lib

params := lib.params({})

deny contains finding if {
	not agreed
	on_deployment == ""
	finding := {
		"code": "missing",
		"msg": "the Deployment has no version label, so nobody can name what it runs",
		"path": deployment_path,
		"fix": sprintf(`app.kubernetes.io/version: "%s"`, [wanted]),
	}
}

deny contains finding if {
	not agreed
	on_template == ""
	finding := {
		"code": "missing",
		"msg": "the pod template has no version label, so nobody can name what its pods run",
		"path": template_path,
		"fix": sprintf(`app.kubernetes.io/version: "%s"`, [wanted]),
	}
}

deny contains finding if {
	not agreed
	on_deployment != ""
	on_template != ""
	finding := {
		"code": "differ",
		"msg": sprintf("the Deployment says version %s, its pods say %s", [on_deployment, on_template]),
		"path": template_path,
		"fix": "give both the same version",
	}
}

deny contains finding if {
	template.metadata.labels["app.kubernetes.io/version"] == input.request.oldObject.spec.template.metadata.labels["app.kubernetes.io/version"]
	on_template != ""
	[was, is] := compared
	old := image_of(before, was)
	new := image_of(template, is)
	new != old
	another(image_parts(old), image_parts(new))
	finding := {
		"code": "unchanged",
		"msg": sprintf("the image changes from %s to %s, but the version stays %s", [old, new, on_template]),
		"path": template_path,
		"fix": sprintf(`app.kubernetes.io/version: "%s", on the Deployment and on its pod template`, [new_version]),
	}
}

# A selector cannot be changed, so neither can a version in it.
deny contains finding if {
	some place in selector_places
	finding := {
		"code": "in-selector",
		"msg": "the selector holds the version, and a selector cannot be changed: no other version can ever be rolled out",
		"path": place,
		"fix": "select by a label that stays, e.g. app.kubernetes.io/name, and make the Deployment again",
	}
}

# The version that is there, where the other is missing, or was copied before and has fallen behind: what a file says stays,
# which surefoot sees to.
defaults contains {"path": template_path, "value": on_deployment, "sticky": false} if {
	not agreed
	on_deployment != ""
	behind(on_template, before_on_template, on_deployment, before_on_deployment)
}

defaults contains {"path": deployment_path, "value": on_template, "sticky": false} if {
	not agreed
	on_template != ""
	behind(on_deployment, before_on_deployment, on_template, before_on_template)
}

behind(copy, _, _, _) if copy == ""

behind(copy, copy_before, source, source_before) if {
	copy == copy_before
	source != source_before
}

template := input.request.object.spec.template

# Both are there and the same: what most Deployments are.
agreed if {
	version := input.request.object.metadata.labels["app.kubernetes.io/version"]
	version == template.metadata.labels["app.kubernetes.io/version"]
	is_string(version)
	version != ""
}

on_deployment := lib.version(input.request.object)

on_template := lib.version(template)

default before_on_deployment := ""

before_on_deployment := lib.version(input.request.oldObject)

default before_on_template := ""

before_on_template := lib.version(input.request.oldObject.spec.template)

deployment_path := "/metadata/labels/app.kubernetes.io~1version"

template_path := "/spec/template/metadata/labels/app.kubernetes.io~1version"

selector_places contains "/spec/selector/matchLabels/app.kubernetes.io~1version" if {
	input.request.object.spec.selector.matchLabels["app.kubernetes.io/version"]
}

selector_places contains sprintf("/spec/selector/matchExpressions/%v/key", [index]) if {
	input.request.object.spec.selector.matchExpressions[index].key == "app.kubernetes.io/version"
}

# What to write where the version is missing: the other one, else the tag, else an example.
wanted := versions[0] if {
	versions := [version | some version in [on_deployment, on_template, tag, "1.0.0"]; not version in ["", "latest"]]
}

new_version := tag if {
	not tag in ["", "latest", on_template]
} else := "THE NEW VERSION"

default tag := ""

tag := image_parts(image_of(template, model_container(template))).tag

# The name of the model container.
model_container(of) := name if {
	name := of.metadata.annotations["kubectl.kubernetes.io/default-container"]
	image_of(of, name)
} else := of.spec.containers[0].name

image_of(of, name) := images[0] if {
	# Files may hold a name twice, which the API server refuses.
	images := [container.image | container := of.spec.containers[_]; container.name == name; is_string(container.image)]
}

# Whose images are compared: those of the same container, wherever it stands now. Where it was taken away and none came, it was
# not the model's, which is the one that is left; else what is the model container now has taken its place.
compared := [name, name] if {
	name := model_container(before)
	image_of(template, name)
} else := [name, name] if {
	name := model_container(template)
	image_of(before, name)
	every container in template.spec.containers { image_of(before, container.name) }
} else := [model_container(before), model_container(template)]

before := input.request.oldObject.spec.template

# Repository without the registry's host, tag and digest.
image_parts(image) := {"repository": repository, "tag": tag_of, "digest": digest} if {
	[name, digest] := array.slice(array.concat(split(image, "@"), [""]), 0, 2)
	steps := split(name, "/")
	last := split(steps[count(steps) - 1], ":")
	tag_of := concat("", array.slice(last, 1, 2))
	path := array.concat(array.slice(steps, hosts(steps), count(steps) - 1), [last[0]])
	repository := trim_prefix(concat("/", path), "library/")
}

# How many of the steps are a host: the first one, where it has a dot or a port, or is this machine.
hosts(steps) := 1 if {
	count(steps) > 1
	regex.match(`[.:]|^localhost$`, steps[0])
} else := 0

another(old, new) if {
	old.repository != new.repository
} else if {
	says(old.tag)
	says(new.tag)
	old.tag != new.tag
} else if {
	not both_say(old.tag, new.tag)
	old.digest != ""
	new.digest != ""
	old.digest != new.digest
}

# `latest` says as little as none: to write what it is in its place is what `images` asks for.
says(version) if not version in {"", "latest"}

both_say(one, other) if {
	says(one)
	says(other)
}
