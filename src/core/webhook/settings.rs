//! How a goal's postbacks are sent and signed.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::core::UnixMillis;

/// How long the secret before the last rotation still signs beside the new one: a day.
pub const PREVIOUS_SECRET_KEPT_MILLIS: i64 = 24 * 3600 * 1000;

/// How an endpoint is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PostbackMethod {
    /// With a JSON body.
    #[default]
    Post,
    /// By its URL alone, with macros in it.
    Get,
}

impl PostbackMethod {
    /// The public name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Get => "GET",
        }
    }

    /// The method of that public name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Post, Self::Get].into_iter().find(|method| method.as_str() == name)
    }
}

/// A key that postbacks are signed with. Its owner knows it as `whsec_` and base64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SigningSecret(pub [u8; 32]);

impl SigningSecret {
    /// Its text. Never to be logged.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("whsec_{}", STANDARD.encode(self.0))
    }

    /// Reads its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.strip_prefix("whsec_")?).ok()?;
        bytes.try_into().ok().map(Self)
    }
}

impl std::fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// What belongs to a goal's `postback_url`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostbackSettings {
    /// How it is called.
    pub method: PostbackMethod,
    /// What signs: none in a catalog that was restored from its copy, which holds no secrets.
    pub secret: Option<SigningSecret>,
    /// What signed before the last rotation, and until when it still does.
    pub previous: Option<(SigningSecret, UnixMillis)>,
    /// The endpoint answered 410: it is not called until its URL is set again.
    pub disabled: bool,
}

impl PostbackSettings {
    /// Puts a new secret in the place of the current one, which stays for a while.
    pub fn rotate(&mut self, secret: SigningSecret, now: UnixMillis) {
        self.previous = self.secret.map(|old| (old, now.plus(PREVIOUS_SECRET_KEPT_MILLIS)));
        self.secret = Some(secret);
    }

    /// The secrets in force, the newest first.
    pub fn live(&self, now: UnixMillis) -> impl Iterator<Item = &SigningSecret> {
        let previous = self.previous.as_ref().filter(move |(_, until)| now < *until);
        self.secret.iter().chain(previous.map(|(secret, _)| secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_secrets_live_for_a_day() {
        let mut settings = PostbackSettings::default();
        let now = UnixMillis(1_000);
        settings.rotate(SigningSecret([1; 32]), now);
        assert_eq!(settings.live(now).count(), 1);
        settings.rotate(SigningSecret([2; 32]), now);
        assert_eq!(
            settings.live(now).copied().collect::<Vec<_>>(),
            [SigningSecret([2; 32]), SigningSecret([1; 32])]
        );
        settings.rotate(SigningSecret([3; 32]), now);
        assert_eq!(settings.live(now).count(), 2, "never more than two");
        assert_eq!(settings.live(now.plus(PREVIOUS_SECRET_KEPT_MILLIS)).count(), 1);
    }

    #[test]
    fn a_secret_reads_back_and_is_not_printed() {
        let secret = SigningSecret([7; 32]);
        assert_eq!(SigningSecret::parse(&secret.expose()), Some(secret));
        assert_eq!(format!("{secret:?}"), "[secret]");
        for wrong in ["", "whsec_", "whsec_AAAA", &secret.expose()[6..]] {
            assert_eq!(SigningSecret::parse(wrong), None, "{wrong}");
        }
    }
}
