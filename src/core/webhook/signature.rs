//! Signing as Standard Webhooks has it: HMAC-SHA256 over `id.timestamp.body`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::SigningSecret;

/// The header `webhook-signature`: one signature for each live secret, so that a receiver may know either.
#[must_use]
pub fn sign<'a>(
    secrets: impl Iterator<Item = &'a SigningSecret>,
    webhook_id: &str,
    timestamp_seconds: i64,
    body: &str,
) -> String {
    let signatures = secrets.filter_map(|secret| {
        // A key of any length is taken.
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret.0).ok()?;
        mac.update(webhook_id.as_bytes());
        mac.update(format!(".{timestamp_seconds}.").as_bytes());
        mac.update(body.as_bytes());
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    });
    signatures.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use standardwebhooks::Webhook;

    use super::*;

    fn verifies(secret: &SigningSecret, signature: &str, at: i64, body: &str) -> bool {
        let mut headers = http::HeaderMap::new();
        for (name, value) in [
            ("webhook-id", "msg_1"),
            ("webhook-timestamp", &at.to_string()),
            ("webhook-signature", signature),
        ] {
            headers
                .insert(http::HeaderName::try_from(name).expect("a name"), value.parse().expect("a value"));
        }
        let webhook = Webhook::new(&secret.expose()).expect("a secret");
        webhook.verify(body.as_bytes(), &headers).is_ok()
    }

    #[test]
    fn the_specifications_own_library_verifies_it() {
        let (old, new) = (SigningSecret([1; 32]), SigningSecret([2; 32]));
        let now = jiff::Timestamp::now().as_second();
        let both = sign([&new, &old].into_iter(), "msg_1", now, r#"{"a":1}"#);
        for secret in [&old, &new] {
            assert!(verifies(secret, &both, now, r#"{"a":1}"#));
            assert!(!verifies(secret, &both, now, r#"{"a":2}"#));
            assert!(!verifies(secret, &both, now + 1, r#"{"a":1}"#));
        }
        assert!(!verifies(&SigningSecret([3; 32]), &both, now, r#"{"a":1}"#));
        assert_eq!(sign(std::iter::empty(), "msg_1", 0, ""), "");
    }

    /// As the specification's own library signs.
    #[test]
    fn a_known_signature() {
        let key = STANDARD.decode("C2FVsBQIhrscChlQIMV+b5sSYspob7oDazfgh7fQAAA=").expect("base64");
        let secret = SigningSecret(key.try_into().expect("32 bytes"));
        let ours = sign(
            [&secret].into_iter(),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        let theirs = Webhook::new(&secret.expose())
            .expect("a secret")
            .sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#)
            .expect("signed");
        assert_eq!(ours, theirs);
    }
}
