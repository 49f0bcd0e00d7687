# METADATA
# title: Quantities
# description: |
#   Amounts of resources in every notation that Kubernetes reads, compared exactly. Nothing here fails on nonsense.
package surefoot.quantity

# Is it there and above zero? What begins with a digit from 1 to 9 is; only the others are worth a closer look.
positive(quantity) if {
	quantity >= "1"
	quantity < ":"
} else if {
	milli(quantity) > 0
}

# Is the first quantity above the second?
above(quantity, limit) if {
	quantity != limit
	milli(quantity) > milli(limit)
}

# Rows that each end with two quantities: are all of these of the simplest kinds? Then `units.parse` reads them, which is ten
# times faster than `milli`; but it knows neither exponents nor signs, and fails on nonsense. One look at all is the cheapest.
plain(rows) if {
	regex.match(`^\[(\[(("[^"\\]*"|[0-9]+),)*("[0-9]+(\.[0-9]+)?([mkMGTP]|[KMGTP]i)?",?){2}\],?)*\]$`, json.marshal(rows))
}

# A quantity in thousandths, rounded up as Kubernetes does; undefined for what is none.
milli(quantity) := ceil(quantity * 1000) if is_number(quantity)

milli(quantity) := thousandths if {
	is_string(quantity)
	pattern := `^([+-]?)([0-9]*)\.?([0-9]*)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?$`
	[_, sign, whole, fraction, suffix] := regex.find_all_string_submatch_n(pattern, quantity, 1)[0]
	digits := concat("", [whole, fraction])
	digits != ""
	unit := unit_of(suffix)
	amount := scaled(integer(digits) * unit.factor, (unit.power + 3) - count(fraction))
	thousandths := signed(sign, amount)
}

signed("-", amount) := 0 - amount

signed(sign, amount) := amount if sign != "-"

# Leading zeros are no part of a number in JSON.
integer(digits) := to_number(significant) if {
	significant := trim_left(digits, "0")
	significant != ""
} else := 0

scaled(amount, power) := amount * ten_to(power) if power >= 0

scaled(amount, power) := ceil(amount / ten_to(0 - power)) if power < 0

ten_to(power) := to_number(concat("", ["1", substring(zeros, 0, power)]))

zeros := "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"

unit_of(suffix) := si[suffix]

unit_of(suffix) := {"factor": binary[suffix], "power": 0}

unit_of(suffix) := {"factor": 1, "power": power} if {
	[_, sign, digits] := regex.find_all_string_submatch_n(`^[eE]([+-]?)([0-9]+)$`, suffix, 1)[0]
	power := signed(sign, integer(digits))
}

si := {
	"n": {"factor": 1, "power": -9},
	"u": {"factor": 1, "power": -6},
	"m": {"factor": 1, "power": -3},
	"": {"factor": 1, "power": 0},
	"k": {"factor": 1, "power": 3},
	"M": {"factor": 1, "power": 6},
	"G": {"factor": 1, "power": 9},
	"T": {"factor": 1, "power": 12},
	"P": {"factor": 1, "power": 15},
	"E": {"factor": 1, "power": 18},
}

binary := {
	"Ki": 1024,
	"Mi": 1048576,
	"Gi": 1073741824,
	"Ti": 1099511627776,
	"Pi": 1125899906842624,
	"Ei": 1152921504606846976,
}

# Names of resources that are GPUs, or parts of one.
is_gpu(resource) if {
	is_string(resource)
	endswith(resource, "/gpu")
} else if {
	is_string(resource)
	startswith(resource, "nvidia.com/mig-")
}
