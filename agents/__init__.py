"""The stages of the road, one module and one Faust app each: `faust -A agents.send worker`, or `postroad worker send`."""
