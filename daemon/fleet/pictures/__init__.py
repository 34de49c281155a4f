"""Single pictures by a whole fleet: the HTTP APIs of the nodes behind Ray Serve.

Three calls are all that the rest of the fleet needs:

- Whoever builds a node's daemon sets `http.fleet.doors` of its configuration to `doors.folder_of(fleet, id of the Ray
  node)`.
- Whoever runs the fleet calls `deployment.deploy(settings, number of Ray nodes)` where `http.fleet.enabled`, in a
  thread, and again when the configuration or the number has changed.
- Whoever ends the fleet calls `deployment.undeploy(fleet)`.

Only `deployment` imports ray.
"""
