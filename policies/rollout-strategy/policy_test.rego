package surefoot.rollout_strategy_test

import data.surefoot.fixtures_test as fixtures
import data.surefoot.rollout_strategy

seconds(patches) := values if {
	values := {entry.value | some entry in rollout_strategy.defaults; entry.path == "/spec/minReadySeconds"} with input as fixtures.create(patches)
}

model := "/spec/template/spec/containers/0"

proxy := "/spec/template/spec/containers/1"

denied(patches) := codes if {
	codes := fixtures.codes(rollout_strategy.deny) with input as fixtures.create(patches)
}

warned(patches) := codes if {
	codes := fixtures.codes(rollout_strategy.warn) with input as fixtures.create(patches)
}

test_good if {
	denied([]) == set()
	warned([]) == set()
}

test_parameters if {
	rollout_strategy.params == {} with input as {}
}

# The longest of: model 10 * 3 and 5 * 3, proxy 10 * 6 and 10 * 3.
test_as_long_as_the_probes_need if {
	seconds([]) == {60}
	seconds(fixtures.remove(proxy)) == {30}
	seconds(array.concat(fixtures.remove(proxy), fixtures.remove(concat("", [model, "/livenessProbe"])))) == {15}
	seconds(fixtures.add(concat("", [proxy, "/livenessProbe/initialDelaySeconds"]), 20)) == {80}
	seconds(fixtures.add(concat("", [proxy, "/readinessProbe/initialDelaySeconds"]), 200)) == {60}
	seconds(fixtures.replace(concat("", [proxy, "/readinessProbe/failureThreshold"]), 9)) == {90}
}

test_bounds if {
	seconds(fixtures.replace("/spec/template/spec/containers", [])) == {10}
	seconds(fixtures.replace(concat("", [proxy, "/livenessProbe/failureThreshold"]), 100)) == {599}
	seconds(fixtures.replace("/spec/progressDeadlineSeconds", 40)) == {39}
	seconds(fixtures.replace("/spec/progressDeadlineSeconds", 1)) == set()
	seconds(fixtures.remove("/spec/progressDeadlineSeconds")) == {60}
	seconds(fixtures.replace(concat("", [proxy, "/livenessProbe"]), {"exec": {}})) == {30}
}

test_other_containers_do_not_count if {
	slow := {"name": "slow", "livenessProbe": {"exec": {}, "periodSeconds": 100, "failureThreshold": 5}}
	seconds(fixtures.add("/spec/template/spec/initContainers/-", slow)) == {60}
	seconds(fixtures.add("/spec/template/spec/ephemeralContainers", [slow])) == {60}
}

test_recreate if {
	findings := rollout_strategy.deny with input as fixtures.create(fixtures.replace("/spec/strategy", {"type": "Recreate"}))
	findings == {{
		"code": "recreate",
		"msg": "strategy Recreate stops every pod before the first new one starts to load, and so does going back",
		"path": "/spec/strategy/type",
		"fix": "type: RollingUpdate",
	}}

	# Where nothing runs this holds all the same.
	idle := array.concat(fixtures.replace("/spec/strategy", {"type": "Recreate"}), fixtures.replace("/spec/replicas", 0))
	denied(idle) == {"recreate"}
}

strategy(replicas, surge, unavailable) := [
	{"op": "replace", "path": "/spec/replicas", "value": replicas},
	{"op": "replace", "path": "/spec/strategy/rollingUpdate", "value": {"maxSurge": surge, "maxUnavailable": unavailable}},
]

test_empties if {
	findings := rollout_strategy.deny with input as fixtures.create(strategy(4, "25%", "100%"))
	findings == {{
		"code": "empties",
		"msg": "maxUnavailable 100% with maxSurge 25% lets a rollout stop 4 of 4 replicas before a new one is ready",
		"path": "/spec/strategy/rollingUpdate/maxUnavailable",
		"fix": "maxUnavailable: 25%",
	}}
}

# Replicas, surge, unavailable, and whether that empties the service.
test_rounding if {
	rows := [
		[4, "25%", "25%", false], [4, "25%", 3, false], [4, "25%", 4, true], [4, "25%", 9, true], [4, "25%", "99%", false],
		[4, 0, "100%", true], [1, "25%", "25%", false], [1, "25%", "99%", false], [1, "25%", "100%", true], [1, 1, 1, true],
		[1, 1, 0, false], [2, 0, 1, false], [2, 0, "50%", false], [2, 0, "49%", false], [2, 0, 2, true],
		# Both come to nothing, so one is unavailable.
		[1, 0, "99%", true], [1, "0%", "1%", true], [2, 0, "1%", false], [1, 0, "25%", true], [1, "0%", "25%", true], [2, 0, "25%", false],
		[3, "007%", "0100%", true], [0, "25%", "100%", false], [0, 1, 1, false], [0, 0, 0, false],
		# What the API server refuses: no verdict of ours.
		[4, "25%", "lots", false], [4, "25%", "4", false], [4, "25%", "", false], [4, "25%", -1, false], [4, "25%", null, false],
	]
	wrong := [row | some row in rows; ("empties" in denied(strategy(row[0], row[1], row[2]))) != row[3]]
	wrong == []
}

# The same as an independent reckoning, in whole pods.
test_every_count if {
	wrong := [[replicas, surge, unavailable] |
		some replicas in numbers.range(0, 12)
		some surge in [0, 30]
		some unavailable in [0, 7, 50, 90, 100]
		found := small(replicas, sprintf("%d%%", [surge]), sprintf("%d%%", [unavailable]))
		found != emptied(replicas, ceil((replicas * surge) / 100), floor((replicas * unavailable) / 100))
	]
	wrong == []
}

emptied(0, _, _) := false

emptied(replicas, surge, stopped) := max([stopped, 1 - (surge + stopped)]) >= replicas if replicas > 0

# No more than this rule reads.
small(replicas, surge, unavailable) := found if {
	spec := {"replicas": replicas, "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}
	findings := rollout_strategy.deny with input as {"request": {"object": {"spec": spec}}}
	found := "empties" in fixtures.codes(findings)
}

test_absent_replicas_are_one if {
	"empties" in denied(array.concat(strategy(1, "25%", 1), fixtures.remove("/spec/replicas")))
}

# What is told as the way out is one.
test_fixes_of_what_empties if {
	rows := [
		[4, "25%", 4, "maxUnavailable: 25%", strategy(4, "25%", "25%")],
		[1, 1, 1, "maxUnavailable: 25%", strategy(1, 1, "25%")],
		[2, 0, 2, "maxUnavailable: 1", strategy(2, 0, 1)],
		[1, 0, 1, "maxSurge: 1, maxUnavailable: 0", strategy(1, 1, 0)],
	]
	wrong := [row | some row in rows; fixes(strategy(row[0], row[1], row[2])) != {row[3]}]
	wrong == []
	[row | some row in rows; denied(row[4]) != set()] == []
}

fixes(patches) := found if {
	found := {finding.fix | some finding in rollout_strategy.deny} with input as fixtures.create(patches)
}

test_short_history if {
	findings := rollout_strategy.deny with input as fixtures.create(fixtures.replace("/spec/revisionHistoryLimit", 1))
	findings == {{
		"code": "short-history",
		"msg": "revisionHistoryLimit 1 keeps too few old ReplicaSets, so the last good one may be gone when it is needed",
		"path": "/spec/revisionHistoryLimit",
		"fix": "revisionHistoryLimit: 10",
	}}
	denied(fixtures.replace("/spec/revisionHistoryLimit", 0)) == {"short-history"}
	denied(fixtures.replace("/spec/revisionHistoryLimit", 2)) == set()
	denied(fixtures.remove("/spec/revisionHistoryLimit")) == set()
	denied(fixtures.replace("/spec/revisionHistoryLimit", null)) == set()
}

test_rollback_annotation if {
	annotated := fixtures.add("/metadata/annotations", {"deprecated.deployment.rollback.to": "3"})
	findings := rollout_strategy.deny with input as fixtures.create(annotated)
	findings == {{
		"code": "rollback-annotation",
		"msg": "annotation deprecated.deployment.rollback.to makes Kubernetes put an old revision back, whatever the files say",
		"path": "/metadata/annotations/deprecated.deployment.rollback.to",
		"fix": "leave it out, and go back with: kubectl rollout undo deploy/churn -n shop",
	}}
	denied(fixtures.add("/metadata/annotations", {"other": "3"})) == set()
}

# The model asks for a GPU: 25 % of 3 are none.
test_surge_needs_gpu if {
	findings := rollout_strategy.warn with input as fixtures.create(fixtures.replace("/spec/replicas", 3))
	findings == {{
		"code": "surge-needs-gpu",
		"msg": "a rollout starts a new pod before it stops an old one (maxUnavailable 25% of 3: none), and without a free nvidia.com/gpu it never ends",
		"path": "/spec/strategy/rollingUpdate/maxUnavailable",
		"fix": "maxSurge: 0, maxUnavailable: 1",
	}}
	rows := [
		[3, "25%", "25%", true], [4, "25%", "25%", false], [2, 1, 0, true], [1, 1, 0, true], [4, 0, 1, false], [3, 0, 1, false],
		[3, 0, "25%", false], [8, "100%", "12%", true], [8, "100%", "13%", false], [0, 1, 0, true], [0, "25%", "25%", false],
		[4, "25%", "lots", false],
	]
	wrong := [row | some row in rows; ("surge-needs-gpu" in warned(strategy(row[0], row[1], row[2]))) != row[3]]
	wrong == []
}

with_resources(list, resources) := warned(array.concat(
	fixtures.replace("/spec/replicas", 1),
	array.concat(
		fixtures.replace(concat("", [model, "/resources"]), {}),
		fixtures.replace(sprintf("/spec/template/spec/%s/0/resources", [list]), resources),
	),
))

test_whole_gpus if {
	whole := [
		{"limits": {"nvidia.com/gpu": "1"}}, {"limits": {"amd.com/gpu": 2}}, {"requests": {"nvidia.com/gpu": "1"}},
		{"claims": [{"name": "x"}], "limits": {"nvidia.com/gpu": "1"}},
	]
	[one | some one in whole; with_resources("containers", one) != {"surge-needs-gpu"}] == []
	with_resources("initContainers", {"limits": {"nvidia.com/gpu": "1"}}) == {"surge-needs-gpu"}
	none := [
		{"limits": {"nvidia.com/mig-1g.5gb": "1"}}, {"limits": {"nvidia.com/gpu": "0"}}, {"limits": {"cpu": "1"}}, {"claims": [{"name": "gpu"}]},
		{"claims": ["x/gpu"]},
	]
	[one | some one in none; with_resources("containers", one) != set()] == []
}

test_fixes_of_a_surge if {
	warned(strategy(3, 0, 1)) == set()
	denied(strategy(3, 0, 1)) == set()
	found := {finding.fix | some finding in rollout_strategy.warn} with input as fixtures.create(strategy(1, 1, 0))
	found == {"keep one free, or run two replicas with maxSurge: 0, maxUnavailable: 1"}
	warned(strategy(2, 0, 1)) == set()
	denied(strategy(2, 0, 1)) == set()
}

deadline(review) := values if {
	values := {entry.value | some entry in rollout_strategy.defaults; entry.path == "/spec/progressDeadlineSeconds"} with input as review
}

slow(threshold, more) := fixtures.create(array.concat(fixtures.replace(concat("", [model, "/startupProbe/failureThreshold"]), threshold), more))

# minReadySeconds is 60 here.
test_deadline_after_the_startup_budget if {
	deadline(slow(180, [])) == {2232} # (1800 + 60) * 1.2
	deadline(slow(60, [])) == set() # not above it
	deadline(slow(61, [])) == {804}
	deadline(slow(61, fixtures.add(concat("", [model, "/startupProbe/initialDelaySeconds"]), 1))) == {806} # 671 * 1.2 = 805.2
	deadline(slow(180, fixtures.remove("/spec/progressDeadlineSeconds"))) == {2232}
	deadline(slow(180, fixtures.replace("/spec/progressDeadlineSeconds", 601))) == set()
	deadline(slow(180, fixtures.replace("/spec/progressDeadlineSeconds", 30))) == set()
	deadline(slow(180, fixtures.add("/spec/minReadySeconds", 10))) == {2172}
	deadline(slow(180, fixtures.add("/spec/minReadySeconds", 0))) == {2232}
	deadline(slow(2000000000, [])) == {2147483647}
	none := fixtures.create(fixtures.replace(concat("", [model, "/startupProbe"]), {"periodSeconds": 1000}))
	deadline(none) == set()
}

# What was there stays, below the deadline.
test_deadline_with_what_was_there if {
	threshold := fixtures.replace(concat("", [model, "/startupProbe/failureThreshold"]), 180)
	deadline(fixtures.update(fixtures.add("/spec/minReadySeconds", 40), threshold)) == {2208}
	deadline(fixtures.update([], threshold)) == {2232}
}

test_min_ready_of_before_fits_the_deadline if {
	stays := {entry.value | some entry in rollout_strategy.defaults; entry.path == "/spec/minReadySeconds"} with input as fixtures.update(fixtures.add("/spec/minReadySeconds", 300), [])
	stays == {300}
	capped := {entry.value | some entry in rollout_strategy.defaults; entry.path == "/spec/minReadySeconds"} with input as fixtures.update(fixtures.add("/spec/minReadySeconds", 300), fixtures.replace("/spec/progressDeadlineSeconds", 200))
	capped == {199}
}

survives(value) if {
	places := [
		model, concat("", [model, "/livenessProbe"]), concat("", [model, "/livenessProbe/periodSeconds"]),
		concat("", [model, "/resources"]), concat("", [model, "/resources/limits"]), "/metadata", "/metadata/labels", "/spec/replicas",
		"/spec/strategy", "/spec/strategy/type", "/spec/strategy/rollingUpdate", "/spec/strategy/rollingUpdate/maxSurge",
		"/spec/strategy/rollingUpdate/maxUnavailable", "/spec/revisionHistoryLimit",
		"/spec", "/spec/progressDeadlineSeconds", "/spec/template", "/spec/template/spec", "/spec/template/spec/containers",
	]
	results := [1 |
		some place in places
		review := fixtures.create(fixtures.replace(place, value))
		{type_name(result) | some result in [rollout_strategy.deny, rollout_strategy.warn, rollout_strategy.defaults]} == {"set"} with input as review
	]
	count(results) == count(places)
}

test_null_in_every_place if survives(null)

test_number_in_every_place if survives(7)

test_list_in_every_place if survives(["x"])
