"""Single pictures by a whole fleet: the HTTP APIs of the nodes behind Ray Serve.

Three calls are all that the rest of the fleet needs:

- Whoever builds a node's daemon sets `http.fleet.doors` of its configuration to `doors.folder_of(fleet, id of the Ray
  node)`.
- Whoever hands the fleet a configuration calls `serving.serve_as_configured(settings)`. From then on the number of
  replicas follows that of the nodes by itself.
- Whoever ends the fleet calls `serving.serve_no_more(fleet)`.

`doors`, `heads`, `body`, `door`, `paths` and `front` do without ray.
"""
