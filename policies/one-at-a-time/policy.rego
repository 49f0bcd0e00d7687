# METADATA
# title: One version at a time
# description: |
#   A version settles when all its pods have been up and quiet for the bake time. Another one on top of it before that, and
#   nobody can tell which of the two fails, and neither has shown that it can be gone back to. To go back to a version that
#   has settled, or to mend one that is failing, is never too early.
# schemas:
# - input: schema.input
# custom:
#   action: Warn
#   needs: [history]
#   codes:
#     unsettled: A new pod template comes while the last one has neither settled nor failed. Wait with surefoot wait, or go back to one that has settled.
package surefoot.one_at_a_time

import data.surefoot.lib

params := lib.params({})

warn contains finding if {
	rollout := input.context.history.rollout
	not rollout.failing
	template := input.context.history.template
	template.digest != rollout.digest
	not template.settled
	input.request.operation == "UPDATE"
	input.request.object.spec.template != input.request.oldObject.spec.template
	finding := {
		"code": "unsettled",
		"msg": sprintf("%s, rolled out since %s, has not settled: with another one on top nobody can tell which of them fails", [called(rollout), rollout.since]),
		"path": "/spec/template",
		"fix": sprintf("surefoot wait deploy/%s -n %s --for settled, then this one", [input.request.name, input.request.namespace]),
	}
}

called(rollout) := sprintf("version %s", [rollout.version]) if {
	is_string(rollout.version)
} else := "the pod template before this one"
