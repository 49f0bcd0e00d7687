package surefoot.canary_cap_test

import data.surefoot.canary_cap
import data.surefoot.fixtures_test as fixtures

peer(name, track, replicas) := {
	"metadata": {"name": name, "namespace": "shop", "labels": {
		"surefoot.dev/model": "churn",
		"surefoot.dev/track": track,
		"app.kubernetes.io/version": "2.3.1",
	}},
	"spec": {"replicas": replicas},
}

canary(replicas) := [
	{"op": "add", "path": "/metadata/labels/surefoot.dev~1track", "value": "canary"},
	{"op": "replace", "path": "/spec/replicas", "value": replicas},
]

among(review, peers) := object.union(review, {"context": {"peers": peers}})

created(replicas, peers) := among(fixtures.create(canary(replicas)), peers)

scaled(before, after, peers) := among(fixtures.update(canary(before), canary(after)), peers)

codes(review) := found if {
	found := fixtures.codes(canary_cap.deny) with input as review
}

test_parameters if {
	canary_cap.params == {"percent": 10, "minimum": 1} with input as {}
}

test_message if {
	findings := canary_cap.deny with input as created(5, [peer("churn-stable", "stable", 20)])
	findings == {{
		"code": "above-cap",
		"msg": "5 canary replicas against 20 stable, the cap is 2",
		"path": "/spec/replicas",
		"fix": "set replicas to 2, or scale the stable Deployment first",
	}}
}

# The cap is admitted and one more is not, for every count; reckoned by hand, ten to one.
test_counts if {
	wrong := [stable |
		some stable in numbers.range(0, 200)
		tens := floor(stable / 10)
		cap := max([1, tens + min([1, stable - (tens * 10)])])
		not right(cap, [peer("churn-stable", "stable", stable)])
	]
	wrong == []
}

right(cap, peers) if {
	codes(small(cap, peers)) == set()
	codes(small(cap + 1, peers)) == {"above-cap"}
}

# No more than this policy reads: 400 of the others would take their time.
small(replicas, peers) := {
	"request": {"namespace": "shop", "name": "churn", "object": {
		"metadata": {"labels": {"surefoot.dev/model": "churn", "surefoot.dev/track": "canary"}},
		"spec": {"replicas": replicas},
	}},
	"context": {"peers": peers},
}

test_parameters_move_the_cap if {
	peers := [peer("churn-stable", "stable", 10)]
	codes(fixtures.with_parameters(created(5, peers), {"percent": 50})) == set()
	codes(fixtures.with_parameters(created(6, peers), {"percent": 50})) == {"above-cap"}
	codes(fixtures.with_parameters(created(3, peers), {"minimum": 3})) == set()
	codes(fixtures.with_parameters(created(4, peers), {"minimum": 3})) == {"above-cap"}
}

test_all_canaries_and_all_stable_ones_count if {
	peers := [
		peer("churn-a", "stable", 10), peer("churn-b", "stable", 10),
		peer("churn-c1", "canary", 1), peer("churn-c2", "canary", 1),
	]
	codes(created(1, peers)) == {"above-cap"}
	codes(created(0, peers)) == set()
	codes(created(1, array.slice(peers, 0, 3))) == set()
	fixes := {finding.fix | some finding in canary_cap.deny} with input as created(1, peers)
	fixes == {"set replicas to 0, or scale the stable Deployment first"}
}

test_only_growth if {
	peers := [peer("churn-stable", "stable", 10)]
	codes(scaled(5, 5, peers)) == set()
	codes(scaled(5, 4, peers)) == set()
	codes(scaled(5, 6, peers)) == {"above-cap"}
	codes(scaled(0, 1, peers)) == set()
	codes(scaled(0, 2, peers)) == {"above-cap"}
}

test_from_stable_to_canary_is_growth_and_back_is_none if {
	peers := [peer("churn-stable", "stable", 10)]
	codes(among(fixtures.update([], canary(4)), peers)) == {"above-cap"}
	codes(among(fixtures.update(canary(1), []), peers)) == set()
	other_model := array.concat(canary(4), fixtures.replace("/metadata/labels/surefoot.dev~1model", "ranker"))
	codes(among(fixtures.update(other_model, canary(4)), peers)) == {"above-cap"}
}

test_a_stable_one_is_free if {
	codes(among(fixtures.create(fixtures.replace("/spec/replicas", 100)), [])) == set()
	codes(among(fixtures.create(fixtures.add("/metadata/labels/surefoot.dev~1track", "stable")), [])) == set()
}

test_replicas_absent_is_one if {
	absent := array.concat(canary(1), fixtures.remove("/spec/replicas"))
	codes(among(fixtures.create(absent), [peer("churn-stable", "stable", 10)])) == set()
	codes(among(fixtures.create(absent), [peer("churn-stable", "stable", 10), peer("churn-c", "canary", 1)])) == {"above-cap"}
	without := json.patch(peer("churn-stable", "stable", 10), [{"op": "remove", "path": "/spec/replicas"}])
	codes(created(2, [without])) == {"above-cap"}
}

test_who_is_a_peer if {
	stable := peer("churn-stable", "stable", 100)
	others := [
		json.patch(stable, fixtures.replace("/metadata/namespace", "risk")),
		json.patch(stable, fixtures.replace("/metadata/name", "churn")),
		json.patch(stable, fixtures.replace("/metadata/labels/surefoot.dev~1model", "ranker")),
		json.patch(stable, fixtures.remove("/metadata/labels")),
	]
	counted := [other | some other in others; codes(created(2, [other])) != {"above-cap"}]
	counted == []
	codes(created(2, [stable])) == set()

	# Without a model there are no peers.
	nameless := array.concat(canary(2), fixtures.remove("/metadata/labels/surefoot.dev~1model"))
	codes(among(fixtures.create(nameless), [json.patch(stable, fixtures.remove("/metadata/labels"))])) == {"above-cap"}
}

test_a_name_that_is_still_to_come if {
	review := json.patch(created(2, [peer("churn-stable", "stable", 20)]), [{"op": "remove", "path": "/request/name"}])
	codes(review) == set()
}

test_same_version if {
	same := json.patch(peer("churn-stable", "stable", 20), fixtures.replace("/metadata/labels/app.kubernetes.io~1version", "2.4.0"))
	findings := canary_cap.deny with input as created(1, [same])
	findings == {{
		"code": "same-version",
		"msg": "the canary is version 2.4.0, which churn-stable runs as stable already, so it tries nothing",
		"path": "/metadata/labels/app.kubernetes.io~1version",
		"fix": "give the canary the version that is to be tried, or scale it to 0",
	}}
	canary_too := fixtures.replace("/metadata/labels/surefoot.dev~1track", "canary")
	canaries := json.patch(same, array.concat(canary_too, fixtures.replace("/spec/replicas", 0)))
	codes(created(1, [canaries])) == set()
	codes(created(0, [same])) == set()
	nameless := json.patch(same, fixtures.remove("/metadata/labels/app.kubernetes.io~1version"))
	without := array.concat(canary(1), fixtures.remove("/metadata/labels/app.kubernetes.io~1version"))
	codes(among(fixtures.create(without), [nameless])) == set()
}

test_no_stable if {
	findings := canary_cap.warn with input as created(1, [peer("churn-c", "canary", 0)])
	findings == {{
		"code": "no-stable",
		"msg": "no stable Deployment of this model in the namespace, so the canary may have 1 at most",
		"path": "/metadata/labels/surefoot.dev~1model",
		"fix": "give the stable Deployment and its canary the same label surefoot.dev/model",
	}}
	canary_cap.warn == set() with input as created(1, [peer("churn-stable", "stable", 0)])
	canary_cap.warn == set() with input as among(fixtures.create([]), [])
}

survives(value) if {
	places := ["/metadata", "/metadata/labels", "/metadata/labels/surefoot.dev~1track", "/metadata/labels/surefoot.dev~1model", "/spec", "/spec/replicas"]
	results := [1 |
		some place in places
		patches := array.concat(canary(2), fixtures.replace(place, value))
		some review in [
			among(fixtures.create(patches), [peer("churn-stable", "stable", 1), value, {"metadata": value}]),
			among(fixtures.update(patches, canary(3)), value),
		]
		{type_name(result) | some result in [canary_cap.deny, canary_cap.warn]} == {"set"} with input as review
	]
	count(results) == count(places) * 2
}

test_null_in_every_place if survives(null)

test_number_in_every_place if survives(7)

test_list_in_every_place if survives(["x"])

tracked(track) := fixtures.create([{"op": "add", "path": "/metadata/labels/surefoot.dev~1track", "value": track}])

test_unknown_track if {
	warned := {track |
		some track in ["stable", "canary", "Canary", "blue", "", 7]
		review := object.union(tracked(track), {"context": {"via": "deployment", "peers": [peer("churn-a", "stable", 3)]}})
		found := canary_cap.warn with input as review
		"unknown-track" in fixtures.codes(found)
	}
	warned == {"Canary", "blue", "", 7}
	scaling := object.union(tracked("blue"), {"context": {"via": "scale", "peers": [peer("churn-a", "stable", 3)]}})
	count(canary_cap.warn) == 0 with input as scaling
	count(canary_cap.warn) == 0 with input as among(fixtures.create([]), [])
}
