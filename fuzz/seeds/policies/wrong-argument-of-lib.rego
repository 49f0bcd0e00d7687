package surefoot.some

import data.surefoot.lib

params := lib.params({"percent"})

deny contains "x"
