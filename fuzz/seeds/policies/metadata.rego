# METADATA
# title: x
# custom: {parameters: {p: {minimum: x}}}

# METADATA
# scope: world
package surefoot.some
