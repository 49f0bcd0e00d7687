package surefoot.images_test

import data.surefoot.fixtures_test as fixtures
import data.surefoot.images

image := "/spec/template/spec/containers/0/image"

denied(reference) := codes if {
	codes := fixtures.codes(images.deny) with input as fixtures.create(fixtures.replace(image, reference))
}

test_good if {
	images.deny == set() with input as fixtures.create([])
	images.params == {"ignoreContainers": []} with input as {}
}

test_every_form if {
	digest := "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	rows := {
		"churn": {"no-tag"},
		"library/churn": {"no-tag"},
		"registry.local/churn": {"no-tag"},
		"registry.local:5000/churn": {"no-tag"},
		"registry.local:5000/team/churn": {"no-tag"},
		"localhost:5000/churn:": {"no-tag"},
		"churn:latest": {"latest"},
		"registry.local:5000/churn:latest": {"latest"},
		"churn:1": set(),
		"registry.local:5000/churn:2.4.0": set(),
		"registry.local/churn:latest-cpu": set(),
		"registry.local/latest:2": set(),
		concat("@", ["churn", digest]): set(),
		concat("@", ["churn:latest", digest]): set(),
		concat("@", ["registry.local:5000/churn:2.4.0", digest]): set(),
		concat("@", ["registry.local:5000/churn", digest]): set(),
	}
	wrong := {reference: denied(reference) | some reference, codes in rows; denied(reference) != codes}
	wrong == {}
}

test_message if {
	findings := images.deny with input as fixtures.create(fixtures.replace(image, "registry.local:5000/churn"))
	findings == {{
		"code": "no-tag",
		"msg": `container "model" runs registry.local:5000/churn, which has neither tag nor digest, so it is whatever is latest`,
		"path": "/spec/template/spec/containers/0/image",
		"fix": "registry.local:5000/churn:2.4.0",
	}}
	latest := images.deny with input as fixtures.create(fixtures.replace(image, "churn:latest"))
	latest == {{
		"code": "latest",
		"msg": `container "model" runs churn:latest, which is another image tomorrow, so there is no way back to today's`,
		"path": "/spec/template/spec/containers/0/image",
		"fix": "churn:2.4.0",
	}}
}

test_fix_without_a_version if {
	patches := array.concat(fixtures.replace(image, "churn"), fixtures.remove("/spec/template/metadata/labels"))
	fixes := {finding.fix | some finding in images.deny} with input as fixtures.create(patches)
	fixes == {"churn:1.0.0, or the version it should be"}
}

test_fix_of_another_container if {
	proxy := fixtures.replace("/spec/template/spec/containers/1/image", "envoy")
	fixes := {finding.fix | some finding in images.deny} with input as fixtures.create(proxy)
	fixes == {"envoy:1.0.0, or the version it should be"}
}

test_all_containers_and_image_volumes if {
	bare := [{"name": "one", "image": "churn"}]
	spec := "/spec/template/spec"
	rows := {
		"/initContainers": [bare, "/initContainers/0/image"],
		"/containers": [bare, "/containers/0/image"],
		"/ephemeralContainers": [bare, "/ephemeralContainers/0/image"],
		"/volumes": [[{"name": "one", "image": {"reference": "churn:latest"}}], "/volumes/0/image/reference"],
	}
	wrong := {list |
		some list, [value, path] in rows
		findings := images.deny with input as fixtures.create(fixtures.add(concat("", [spec, list]), value))
		fixtures.paths(findings) != {concat("", [spec, path])}
	}
	wrong == set()
}

test_ignored if {
	review := fixtures.create(fixtures.replace(image, "churn"))
	images.deny == set() with input as fixtures.with_parameters(review, {"ignoreContainers": ["m*l"]})
	count(images.deny) == 1 with input as fixtures.with_parameters(review, {"ignoreContainers": ["proxy"]})
}

survives(value) if {
	places := ["/spec/template/spec/containers/0/image", "/spec/template/spec/containers/0", "/spec/template/spec/containers", "/spec/template/spec/volumes", "/spec/template/spec", "/spec/template", "/spec"]
	results := [1 |
		some place in places
		review := fixtures.create(fixtures.replace(place, value))
		is_set(images.deny) with input as review
	]
	count(results) == count(places)
}

test_null_in_every_place if survives(null)

test_number_in_every_place if survives(7)

test_list_in_every_place if survives(["x"])
