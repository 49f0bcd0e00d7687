# METADATA
# title: Images that stay what they are
# description: |
#   What runs under `:latest` today is something else tomorrow: a new pod of the same template gets another model, and going
#   back to that template does not go back. A digest pins an image, whatever its tag.
# related_resources:
# - ref: https://kubernetes.io/docs/concepts/containers/images/#image-names
#   description: Image names, tags and digests
# schemas:
# - input: schema.input
# custom:
#   action: Deny
#   parameters:
#     ignoreContainers: {pattern: '^[^ ]+$', description: globs of container names that are not looked at}
#   codes:
#     latest: The image is tagged latest, so the same pod template may run something else tomorrow. Name a version or a digest.
#     no-tag: The image has neither tag nor digest, which means latest. The port of a registry is no tag.
package surefoot.images

import data.surefoot.lib

params := lib.params({"ignoreContainers": []})

deny contains finding if {
	not all_say_what_they_are
	some list in ["containers", "initContainers", "ephemeralContainers"]
	container := pod[list][index]
	container.image > "" # what is between these two is a text
	container.image < []
	not says_what_it_is(container.image)
	not is_ignored(container)
	finding := complaint(lib.called(list, container), container.image, lib.pointer(list, index, ["image"]), example(list, index))
}

deny contains finding if {
	volume := pod.volumes[index]
	volume.image.reference > ""
	volume.image.reference < []
	not says_what_it_is(volume.image.reference)
	who := sprintf(`volume "%s"`, [lib.text(volume, "name")])
	finding := complaint(who, volume.image.reference, lib.pointer("volumes", index, ["image", "reference"]), example("volumes", index))
}

# In a function of its own: `not` of a member that is absent is undefined in OPA.
is_ignored(container) if container.name in ignored

ignored := lib.names_like(params.ignoreContainers)

pod := input.request.object.spec.template.spec

# A quick look at all containers at once, which mostly is enough. Where it is not, each is looked at for itself.
all_say_what_they_are if {
	images := [image |
		some list in ["containers", "initContainers", "ephemeralContainers"]
		image := pod[list][_].image
		image > ""
		image < []
	]
	joined := concat(" ", array.concat(images, [""]))
	regex.match(`^([^ ]*:[^:/ ]+ )*$`, joined)
	not contains(joined, ":latest ")
}

# It has a tag that is not `latest`, or a digest, whatever the tag. What follows the last colon has no slash in it: behind
# the port of a registry there is one.
says_what_it_is(image) if {
	regex.match(`:[^:/]+$`, image)
	not endswith(image, ":latest")
}

complaint(who, image, path, tag) := {
	"code": "latest",
	"msg": sprintf("%s runs %s, which is another image tomorrow, so there is no way back to today's", [who, image]),
	"path": path,
	"fix": sprintf("%s:%s", [trim_suffix(image, ":latest"), tag]),
} if {
	endswith(image, ":latest")
} else := {
	"code": "no-tag",
	"msg": sprintf("%s runs %s, which has neither tag nor digest, so it is whatever is latest", [who, image]),
	"path": path,
	"fix": sprintf("%s:%s", [image, tag]),
}

# What to write behind the colon. The version of the pods is that of the model, and mostly that of the first container.
example(list, index) := version if {
	[list, index] == ["containers", 0]
	version := lib.version(input.request.object.spec.template)
	version != ""
} else := "1.0.0, or the version it should be"
