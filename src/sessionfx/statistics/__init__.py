"""Arithmetic on arrays; knows nothing of files, BIDS or options.

Shapes: T volumes, P regressors, N maps, V voxels. `effect` is a contrast estimate, `variance` its sampling
variance, `dof` the degrees of freedom of the t statistic effect / √variance.
"""
