"""Cut-outs over HTTP: one picture in, one file out. It needs the `serve` extra (starlette and uvicorn).

    POST /cutout?OPTION=…    the body is the picture's file; the answer is the cut-out, or the matte (`part=mask`)
    GET /health              200 and what the service is doing

Options are those of the command line, with its names and its values: `format`, `part`, `preset`, `background` (a
colour, never a file of this machine), `fail_if_empty`, and those of crops, shadows and encoding. What was found is in
the header `X-U2Net`, as JSON, and what took how long in `Server-Timing`. An error is a line of JSON, `{"error": "…"}`:

    400  an option that is unknown or makes no sense      415  a form (multipart), not a file
    404  another path                                     422  a picture that cannot be decoded or is refused
    405  another method                                   500  the process that worked on the picture died
    408  an upload that takes too long                    503  too much to do; `Retry-After` says when to come back
    413  more bytes than are taken                        504  a picture that takes too long

Notable choices:

- Each picture is worked on in one of `jobs` processes (`workers`) with a session each. What crashes a codec or takes
  too long costs that process, which is replaced, and that request. What comes back from it is bytes and JSON: nothing
  is unpickled.
- At most `jobs` + `waiting` requests are let in; others are sent away before their body is read. A connection that does
  not get on with its request is closed.
- Nothing is written to disk, and nothing of a picture is logged.
- SIGTERM and Ctrl-C stop listening, let what was let in finish, and end with status 0.
"""
