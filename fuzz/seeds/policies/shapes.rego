# METADATA
# title: Of everything
# custom:
#   action: Warn
#   needs: [peers]
#   scale: true
#   parameters:
#     percent: {minimum: 1, maximum: 100}
package surefoot.some

import data.surefoot.lib

params := lib.params({"percent": 10, "mode": "a"})

deny contains {"code": "c", "msg": msg, "path": "/spec", "fix": "x"} if {
	some i, container in input.request.object.spec.template.spec.containers
	not container.readinessProbe
	every k, v in container { k != v }
	msg := sprintf("%s %d", [container.name, i])
}

warn contains `raw` if count({x | x := input.a[_]}) > params.percent

defaults contains {"path": "/spec/minReadySeconds", "value": 10, "sticky": false}

default f(_) := 1
f(x) := y if { y := x * 2 } else := 3 if x == 1
m[k].n := v if some k, v in {"a": 1}
w if lib.text({"a": "b"}, "a") == "b" with input as {"x": 1} with data.y as 2
