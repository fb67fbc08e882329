//! Accounts and what their plan allows.

use super::{ATTRIBUTION_WINDOW_DAYS_DEFAULT, AccountId, UnixMillis};

/// What an account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Plan {
    /// No conversion tracking.
    Starter,
    /// Conversion tracking with the attribution window fixed at 30 days.
    Pro,
    /// Everything.
    Enterprise,
}

/// Why a plan refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanRefusal {
    /// Conversion tracking is not part of the plan.
    #[error("conversion tracking needs the pro or the enterprise plan")]
    Tracking,
    /// Another window than 30 days is not part of the plan.
    #[error("an attribution window other than 30 days needs the enterprise plan")]
    Window,
}

impl Plan {
    /// The plan's public name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starter => "starter",
            Self::Pro => "pro",
            Self::Enterprise => "enterprise",
        }
    }

    /// The plan of that public name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Starter, Self::Pro, Self::Enterprise].into_iter().find(|plan| plan.as_str() == name)
    }

    /// Whether conversions may be tracked at all.
    pub fn allows_tracking(self) -> Result<(), PlanRefusal> {
        if self == Self::Starter { Err(PlanRefusal::Tracking) } else { Ok(()) }
    }

    /// Whether a goal may have this attribution window.
    pub fn allows_window(self, days: u16) -> Result<(), PlanRefusal> {
        self.allows_tracking()?;
        match self {
            Self::Pro if days != ATTRIBUTION_WINDOW_DAYS_DEFAULT => Err(PlanRefusal::Window),
            _ => Ok(()),
        }
    }

    /// The attribution window, in seconds, of a goal that asks for so many days. A window that the plan does not allow
    /// (any more) is the usual one: an account that was given a smaller plan goes on tracking.
    #[must_use]
    pub fn window_seconds(self, days: u16) -> u32 {
        let days = if self.allows_window(days).is_ok() { days } else { ATTRIBUTION_WINDOW_DAYS_DEFAULT };
        u32::from(days) * 86_400
    }
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub id: AccountId,
    /// Its unique name; the first one is `default`.
    pub name: String,
    /// What it may do.
    pub plan: Plan,
    /// Hits a minute per postback token; `None`: the daemon's setting.
    pub rate_limit_per_minute: Option<u32>,
}

/// What lets a program act for an account. The secret itself is shown once and kept nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its number, part of the key's text.
    pub id: u32,
    /// For whom it acts.
    pub account_id: AccountId,
    /// Shown to people.
    pub name: String,
    /// SHA-256 of the secret: 256 random bits need no salt and no slow hash.
    pub sha256: [u8; 32],
    /// When it was made.
    pub created_at: UnixMillis,
    /// No longer accepted.
    pub revoked: bool,
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKey")
            .field("id", &self.id)
            .field("account_id", &self.account_id)
            .field("name", &self.name)
            .field("revoked", &self.revoked)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_follow_the_plan() {
        assert_eq!(Plan::Starter.allows_window(30), Err(PlanRefusal::Tracking));
        assert_eq!(Plan::Pro.allows_window(30), Ok(()));
        assert_eq!(Plan::Pro.allows_window(7), Err(PlanRefusal::Window));
        assert_eq!(Plan::Enterprise.allows_window(7), Ok(()));
        assert_eq!(Plan::Enterprise.window_seconds(7), 604_800);
        assert_eq!(Plan::Pro.window_seconds(7), 2_592_000, "what a smaller plan left behind");
    }
}
