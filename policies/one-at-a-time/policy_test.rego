package surefoot.one_at_a_time_test

import data.surefoot.fixtures_test as fixtures
import data.surefoot.one_at_a_time

unsettled := {"digest": "v1:aa", "version": "2.4.0", "since": "2026-11-22T14:21:07Z", "failing": false}

another := {"digest": "v1:bb", "settled": false}

# A new image while the rollout is under watch.
updated(rollout, template) := object.union(
	fixtures.update([], fixtures.replace("/spec/template/spec/containers/0/image", "nvcr.io/nvidia/tritonserver:24.06-py3")),
	{"context": {"history": {"quarantine": [], "rollout": rollout, "template": template}}},
)

codes(review) := found if {
	found := fixtures.codes(one_at_a_time.warn) with input as review
}

test_parameters if {
	one_at_a_time.params == {} with input as {}
}

test_message if {
	findings := one_at_a_time.warn with input as updated(unsettled, another)
	findings == {{
		"code": "unsettled",
		"msg": "version 2.4.0, rolled out since 2026-11-22T14:21:07Z, has not settled: with another one on top nobody can tell which of them fails",
		"path": "/spec/template",
		"fix": "surefoot wait deploy/churn -n shop --for settled, then this one",
	}}
	nameless := one_at_a_time.warn with input as updated(object.union(unsettled, {"version": null}), another)
	{finding.msg | some finding in nameless} == {"the pod template before this one, rolled out since 2026-11-22T14:21:07Z, has not settled: with another one on top nobody can tell which of them fails"}
}

test_nothing_under_way if {
	review := updated(unsettled, another)
	codes(json.patch(review, fixtures.remove("/context/history/rollout"))) == set()
	codes(object.union(review, {"context": {"history": {"rollout": null, "template": null}}})) == set()
	codes(json.patch(review, fixtures.remove("/context/history"))) == set()
}

test_going_back if {
	codes(updated(unsettled, {"digest": "v1:bb", "settled": true})) == set()
}

test_mending if {
	codes(updated(object.union(unsettled, {"failing": true}), another)) == set()
}

# The same template again, or one that was there already: what is new is the rest of the Deployment.
test_not_a_new_template if {
	codes(updated(unsettled, {"digest": "v1:aa", "settled": false})) == set()
	scaled := object.union(
		fixtures.update([], fixtures.replace("/spec/replicas", 7)),
		{"context": {"history": {"rollout": unsettled, "template": another}}},
	)
	codes(scaled) == set()
	codes(object.union(updated(unsettled, another), {"request": {"operation": "CREATE"}})) == set()
}
