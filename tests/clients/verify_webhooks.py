"""Verifies postbacks with the library of the Standard Webhooks specification.

Reads JSON lines {"secret": "whsec_…", "headers": {…}, "body": "…"}; prints `verified` or `refused` for each.
"""

import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

for line in sys.stdin:
    hook = json.loads(line)
    try:
        Webhook(hook["secret"]).verify(hook["body"], hook["headers"])
        print("verified")
    except WebhookVerificationError:
        print("refused")
