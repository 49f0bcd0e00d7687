package surefoot.version_labels_test

import data.surefoot.fixtures_test as fixtures
import data.surefoot.version_labels

on_deployment := "/metadata/labels/app.kubernetes.io~1version"

on_template := "/spec/template/metadata/labels/app.kubernetes.io~1version"

image := "/spec/template/spec/containers/0/image"

denied(patches) := findings if {
	findings := version_labels.deny with input as fixtures.create(patches)
}

added(patches) := entries if {
	entries := version_labels.defaults with input as fixtures.create(patches)
}

test_good if {
	denied([]) == set()
	added([]) == set()
	version_labels.params == {} with input as {}
}

test_missing_on_one if {
	denied(fixtures.remove(on_deployment)) == {{
		"code": "missing",
		"msg": "the Deployment has no version label, so nobody can name what it runs",
		"path": on_deployment,
		"fix": `app.kubernetes.io/version: "2.4.0"`,
	}}
	denied(fixtures.remove(on_template)) == {{
		"code": "missing",
		"msg": "the pod template has no version label, so nobody can name what its pods run",
		"path": on_template,
		"fix": `app.kubernetes.io/version: "2.4.0"`,
	}}
}

test_empty_is_missing if {
	fixtures.paths(denied(fixtures.replace(on_template, ""))) == {on_template}
	fixtures.paths(denied(fixtures.replace(on_deployment, ""))) == {on_deployment}
	empty := array.concat(fixtures.replace(on_deployment, ""), fixtures.replace(on_template, ""))
	fixtures.paths(denied(empty)) == {on_deployment, on_template}
	fixtures.codes(denied(empty)) == {"missing"}
}

test_missing_on_both_takes_the_tag if {
	neither := array.concat(fixtures.remove("/metadata/labels"), fixtures.remove("/spec/template/metadata"))
	{finding.fix | some finding in denied(neither)} == {`app.kubernetes.io/version: "24.05-py3"`}
	untagged := array.concat(neither, fixtures.replace(image, "registry.local:5000/churn"))
	{finding.fix | some finding in denied(untagged)} == {`app.kubernetes.io/version: "1.0.0"`}
	latest := array.concat(neither, fixtures.replace(image, "churn:latest"))
	{finding.fix | some finding in denied(latest)} == {`app.kubernetes.io/version: "1.0.0"`}
	odd := array.concat(neither, fixtures.replace(image, null))
	{finding.fix | some finding in denied(odd)} == {`app.kubernetes.io/version: "1.0.0"`}
}

test_differ if {
	denied(fixtures.replace(on_template, "2.3.1")) == {{
		"code": "differ",
		"msg": "the Deployment says version 2.4.0, its pods say 2.3.1",
		"path": on_template,
		"fix": "give both the same version",
	}}
}

test_in_selector if {
	in_labels := denied(fixtures.add("/spec/selector/matchLabels/app.kubernetes.io~1version", "2.4.0"))
	fixtures.codes(in_labels) == {"in-selector"}
	fixtures.paths(in_labels) == {"/spec/selector/matchLabels/app.kubernetes.io~1version"}
	expressions := [{"key": "app", "operator": "Exists"}, {"key": "app.kubernetes.io/version", "operator": "Exists"}]
	fixtures.paths(denied(fixtures.add("/spec/selector/matchExpressions", expressions))) == {"/spec/selector/matchExpressions/1/key"}
	fixtures.codes(denied(fixtures.add("/spec/selector/matchLabels/app.kubernetes.io~1version", ""))) == {"in-selector"}
}

changed(old, new) if {
	review := fixtures.update(fixtures.replace(image, old), fixtures.replace(image, new))
	codes := fixtures.codes(version_labels.deny) with input as review
	codes == {"unchanged"}
}

test_another_image if {
	rows := [
		["churn:2.3.1", "churn:2.4.0"],
		["registry.local/churn:1", "registry.local/ranker:1"],
		["churn@sha256:01", "churn@sha256:02"],
		["churn:1@sha256:01", "churn@sha256:02"],
		["churn:latest@sha256:01", "churn:1@sha256:02"],
		["team/churn:1", "churn:1"],
	]
	[row | some row in rows; not changed(row[0], row[1])] == []
}

test_the_same_image if {
	rows := [
		["churn:1", "churn:1"],
		["registry.local:5000/churn:1", "mirror.local/churn:1"],
		["docker.io/library/churn:1", "churn:1"],
		["localhost/churn:1", "churn:1"],
		["localhost:5000/team/churn:1", "registry.local/team/churn:1"],
		["churn:1@sha256:01", "churn:1@sha256:02"],
		["churn:1", "churn@sha256:02"],
		["churn:1", "churn"],
		["churn", "churn@sha256:02"],
		["churn:latest", "churn:2.4.0"],
		["", "churn"],
	]
	[row | some row in rows; row[0] != ""; changed(row[0], row[1])] == []
}

test_message_of_an_unchanged_version if {
	findings := version_labels.deny with input as fixtures.update(fixtures.replace(image, "churn:2.3.1"), fixtures.replace(image, "churn:2.5.0"))
	findings == {{
		"code": "unchanged",
		"msg": "the image changes from churn:2.3.1 to churn:2.5.0, but the version stays 2.4.0",
		"path": on_template,
		"fix": `app.kubernetes.io/version: "2.5.0", on the Deployment and on its pod template`,
	}}
	digests := version_labels.deny with input as fixtures.update(fixtures.replace(image, "churn@sha256:01"), fixtures.replace(image, "churn@sha256:02"))
	{finding.fix | some finding in digests} == {`app.kubernetes.io/version: "THE NEW VERSION", on the Deployment and on its pod template`}
}

test_a_new_version_goes_with_it if {
	old := array.concat(fixtures.replace(image, "churn:2.3.1"), array.concat(fixtures.replace(on_deployment, "2.3.1"), fixtures.replace(on_template, "2.3.1")))
	version_labels.deny == set() with input as fixtures.update(old, fixtures.replace(image, "churn:2.4.0"))

	# And no image changes without a version: a new version of the same image is fine, and so is a create.
	version_labels.deny == set() with input as fixtures.update(array.concat(fixtures.replace(on_deployment, "1"), fixtures.replace(on_template, "1")), [])
	version_labels.deny == set() with input as fixtures.create(fixtures.replace(image, "churn:2.4.0"))
}

test_only_the_model_container if {
	proxy := "/spec/template/spec/containers/1/image"
	version_labels.deny == set() with input as fixtures.update([], fixtures.replace(proxy, "envoy:2"))
	named := fixtures.add("/spec/template/metadata/annotations", {"kubectl.kubernetes.io/default-container": "proxy"})
	codes := fixtures.codes(version_labels.deny) with input as fixtures.update(named, array.concat(named, fixtures.replace(proxy, "envoy:2")))
	codes == {"unchanged"}
	version_labels.deny == set() with input as fixtures.update(named, array.concat(named, fixtures.replace(image, "churn:2.4.0")))

	# A name that is no container's: the first is the model's.
	nobody := fixtures.add("/spec/template/metadata/annotations", {"kubectl.kubernetes.io/default-container": "nobody"})
	first := fixtures.codes(version_labels.deny) with input as fixtures.update(nobody, array.concat(nobody, fixtures.replace(image, "churn:2.4.0")))
	first == {"unchanged"}
}

test_the_model_container_stays_what_it_was if {
	containers := fixtures.create([]).request.object.spec.template.spec.containers
	reordered := fixtures.replace("/spec/template/spec/containers", [containers[1], containers[0]])
	version_labels.deny == set() with input as fixtures.update([], reordered)
	sidecar := {"name": "mesh", "image": "istio/proxyv2:1.2"}
	in_front := fixtures.replace("/spec/template/spec/containers", array.concat([sidecar], containers))
	version_labels.deny == set() with input as fixtures.update([], in_front)
	named := fixtures.add("/spec/template/metadata/annotations", {"kubectl.kubernetes.io/default-container": "proxy"})
	version_labels.deny == set() with input as fixtures.update([], named)
	version_labels.deny == set() with input as fixtures.update(named, [])

	# What stood in front goes, and comes again.
	version_labels.deny == set() with input as fixtures.update(in_front, [])
	bumped := array.concat(in_front, fixtures.replace("/spec/template/spec/containers/1/image", "churn:2.3.1"))
	behind := fixtures.codes(version_labels.deny) with input as fixtures.update(bumped, [])
	behind == {"unchanged"}

	# Under another name it is the first again, whoever stands beside it.
	beside := fixtures.replace("/spec/template/spec/containers", [containers[1], {"name": "scorer", "image": "scorer:2"}])
	taken := fixtures.codes(version_labels.deny) with input as fixtures.update([], beside)
	taken == {"unchanged"}
	renamed := fixtures.replace("/spec/template/spec/containers", [{"name": "scorer", "image": "scorer:2"}])
	codes := fixtures.codes(version_labels.deny) with input as fixtures.update([], renamed)
	codes == {"unchanged"}
}

test_defaults_copy if {
	added(fixtures.remove(on_template)) == {{"path": on_template, "value": "2.4.0", "sticky": false}}
	added(fixtures.remove("/metadata/labels")) == {{"path": on_deployment, "value": "2.4.0", "sticky": false}}
	added(fixtures.replace(on_template, "2.3.1")) == set()
	added(array.concat(fixtures.remove(on_template), fixtures.remove(on_deployment))) == set()
}

updated(old, patches) := entries if {
	entries := version_labels.defaults with input as fixtures.update(old, patches)
}

# Which of the two was copied is for surefoot to know: it asks the file that was applied.
test_a_copy_follows if {
	updated([], fixtures.replace(on_deployment, "2.5.0")) == {{"path": on_template, "value": "2.5.0", "sticky": false}}
	updated([], fixtures.replace(on_template, "2.5.0")) == {{"path": on_deployment, "value": "2.5.0", "sticky": false}}
	both := array.concat(fixtures.replace(on_deployment, "2.5.0"), fixtures.replace(on_template, "2.6.0"))
	updated([], both) == set()
	updated([], fixtures.remove(on_template)) == {{"path": on_template, "value": "2.4.0", "sticky": false}}

	# What was stored has no template that could be read, or nothing at all.
	updated(fixtures.replace("/spec", null), fixtures.remove(on_template)) == {{"path": on_template, "value": "2.4.0", "sticky": false}}
	bare := {"request": {"object": {"metadata": {"labels": {"app.kubernetes.io/version": "1"}}, "spec": {"template": {}}}}}
	version_labels.defaults == {{"path": on_template, "value": "1", "sticky": false}} with input as bare

	# They differed before, and still do.
	updated(fixtures.replace(on_template, "2.3.1"), fixtures.replace(on_template, "2.3.1")) == set()
}

survives(value) if {
	places := [
		image, on_deployment, on_template, "/metadata", "/metadata/labels", "/spec", "/spec/selector", "/spec/selector/matchLabels",
		"/spec/template", "/spec/template/metadata", "/spec/template/spec", "/spec/template/spec/containers",
	]
	results := [1 |
		some place in places
		some review in [
			fixtures.create(fixtures.replace(place, value)),
			fixtures.update(fixtures.replace(place, value), fixtures.replace(image, "churn:1")),
			fixtures.update(fixtures.replace(image, "churn:1"), fixtures.replace(place, value)),
		]
		{type_name(result) | some result in [version_labels.deny, version_labels.defaults]} == {"set"} with input as review
	]
	count(results) == count(places) * 3
}

test_null_in_every_place if survives(null)

test_number_in_every_place if survives(7)

test_list_in_every_place if survives(["x"])
