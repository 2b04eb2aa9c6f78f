"""The controller: what lies in the model repository is what the model servers serve, and gateways are told the routes.

Started by the command line through `service.run_controller`. It never sits in the path of a request.
"""
