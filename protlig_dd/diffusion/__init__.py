"""The diffusion core: schedules, times, processes, parameterizations, the objective."""
