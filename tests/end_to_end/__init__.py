"""The whole of Joulepath on the real cluster: from `kubectl apply` to joules saved, and through every kind of trouble.

One release for all tests here: `product` installs it, `jobs` are what trains, `watching` records what the cluster
tells, `processes` finds, kills and cuts off. The tests of a module go on where the one before has stopped, since
a training job takes half a minute to start.
"""
