package surefoot.quantity_test

import data.surefoot.quantity

# Each notation that Kubernetes reads, in thousandths.
test_quantities if {
	rows := [
		["0", 0], ["1", 1000], ["1000m", 1000], ["1e3", 1000000], ["1E3", 1000000], ["0.5", 500], [".5", 500], ["1.", 1000],
		["1.5Gi", 1610612736000], ["128974848", 128974848000], ["129e6", 129000000000], ["129M", 129000000000],
		["123Mi", 128974848000], ["1E", 1000000000000000000000], ["1Ei", 1152921504606846976000], ["1k", 1000000],
		["1Ki", 1024000], ["1T", 1000000000000000], ["1Ti", 1099511627776000], ["2P", 2000000000000000000],
		["2Pi", 2251799813685248000], ["1u", 1], ["1n", 1], ["1500u", 2], ["0.0001", 1], ["1e-3", 1], ["1e-1", 100], ["+1", 1000],
		["-1", -1000], ["-100m", -100], ["007", 7000], ["000", 0], ["0Gi", 0], ["100m", 100], ["0.7", 700], ["700m", 700],
		["9223372036854775807", 9223372036854775807000], [2, 2000], [0.5, 500], [0, 0],
	]
	wrong := [[row, quantity.milli(row[0])] | some row in rows; quantity.milli(row[0]) != row[1]]
	wrong == []
}

test_no_quantities if {
	nonsense := ["", ".", "abc", "12Qi", "1.2.3", "--1", "1 Gi", "Gi", "m", "1mi", "e3", "1e", null, true, [], {}]
	taken := [one | some one in nonsense; quantity.milli(one)]
	taken == []

	# Only what begins with a digit from 1 to 9 is taken on trust: the API server reads quantities before any policy does.
	positive := {one | some one in nonsense; quantity.positive(one)}
	positive == {"12Qi", "1.2.3", "1 Gi", "1mi", "1e"}
}

test_positive if {
	all_positive := {one | some one in ["1", "500m", "0.5", ".5", "+1", "1e-3", "1n", 1, 0.1]; quantity.positive(one)}
	count(all_positive) == 9
	none := [one | some one in ["0", "0Gi", "0.0", "-1", "00", 0, -1, "-0.5"]; quantity.positive(one)]
	none == []
}

test_above if {
	rows := [
		["2", "1"], ["1001m", "1"], ["1.1", "1"], ["129M", "123Mi"], ["1Gi", "1G"], ["1e3", "999"], ["1E", "999P"], ["1", "-1"],
		[2, "1"], ["9223372036854775807", "9223372036854775806"], ["0.701", "700m"], ["1", "0"],
	]
	[row | some row in rows; not quantity.above(row[0], row[1])] == []
	[row | some row in rows; quantity.above(row[1], row[0])] == []
	same := [["1", "1000m"], ["700m", "0.7"], ["1536Mi", "1.5Gi"], ["129e6", "129M"], ["1k", "1000"], ["0", "0Gi"], [1, "1"]]
	[row | some row in same; quantity.above(row[0], row[1])] == []
	[row | some row in same; quantity.above(row[1], row[0])] == []
	not quantity.above("nonsense", "1")
	not quantity.above("1", "nonsense")
	not quantity.above(null, "1")
}

test_plain if {
	quantity.plain([["1", "500m"], ["a", 7, "b/c", "0.5", "1.5Gi"], ["containers", "128974848", "129M"]])
	quantity.plain([])
	odd := {one |
		some one in [2, {}, true, "1\n2", "1,2", "1e3", "1E", "-1", "12Qi", "1.2.3", "", null, [], "1 2", "+1", ".5"]
		some row in [["1", one], [one, "1"], ["a", 0, "1", one], ["a", 0, one, "1"]]
		quantity.plain([["1", "1"], row])
	}
	odd == set()
	not quantity.plain([["1"]])
}

test_gpus if {
	gpus := {name | some name in ["nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-1g.5gb", "cpu", "gpu", "example.com/gpus"]; quantity.is_gpu(name)}
	gpus == {"nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-1g.5gb"}
}
