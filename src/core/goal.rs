//! Goals: the actions worth counting.

use super::{AccountId, Currency, GoalId, Money, UnixMillis, webhook::PostbackSettings};

/// The attribution window of a goal that names none, in days.
pub const ATTRIBUTION_WINDOW_DAYS_DEFAULT: u16 = 30;

/// What kind of action a goal counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GoalType {
    /// A sale.
    Purchase,
    /// A registration.
    Signup,
    /// A download.
    Download,
    /// Anything else.
    Custom,
}

impl GoalType {
    /// Every type, in the order in which errors list them.
    pub const ALL: [Self; 4] = [Self::Purchase, Self::Signup, Self::Download, Self::Custom];

    /// The type's public name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Purchase => "purchase",
            Self::Signup => "signup",
            Self::Download => "download",
            Self::Custom => "custom",
        }
    }

    /// The type of that public name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Names a goal in postbacks and pixels. It stands in the source of public pages, so it grants exactly one thing:
/// reporting conversions of its goal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PostbackToken(pub String);

/// A goal as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    /// Its number, unique over all accounts.
    pub id: GoalId,
    /// Whose it is.
    pub account_id: AccountId,
    /// Shown to people; 1 to 200 characters.
    pub name: String,
    /// What it counts.
    pub goal_type: GoalType,
    /// The value of a conversion that brings none.
    pub value: Option<Money>,
    /// The currency of a conversion that brings none; USD where this is absent too.
    pub currency: Option<Currency>,
    /// How old the click that earns a conversion may be, in days.
    pub attribution_window_days: u16,
    /// Where the owner wants to be told of conversions.
    pub postback_url: Option<String>,
    /// How the owner is told, and what signs it.
    pub postback: PostbackSettings,
    /// Whether `ip`, `user_agent` and `converted_at` count in a hit that only the token vouches for. The token stands in
    /// public pages, so with this anybody who reads one may say which visitor converted.
    pub trust_client_fields: bool,
    /// Its name in postbacks and pixels.
    pub postback_token: PostbackToken,
    /// When it was created.
    pub created_at: UnixMillis,
}
