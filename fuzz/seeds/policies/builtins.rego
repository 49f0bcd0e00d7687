package surefoot.some
deny contains x if { x := regex.replace(input.request.uid, "(a*)*b", "$1"); glob.match("a*{b,c}", ["."], x); semver.compare("1.0.0", "2") < 0; time.now_ns() > 0; json.patch({}, [{"op": "add", "path": "/a", "value": yaml.unmarshal("a: 1")}]) }
