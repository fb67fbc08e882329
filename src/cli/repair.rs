//! `tally repair`: which losses an operator accepts.

use clap::{Arg, ArgAction, ArgMatches, builder::PossibleValuesParser};

/// A part of the data folder that is given up, so that the daemon starts without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// How far the log is shipped; the log and its batches go with it.
    Checkpoint,
    /// Batches that are not known to be in ClickHouse.
    Batches,
    /// Hits that are not shipped.
    Log,
    /// Rows that ClickHouse refused.
    DeadLetters,
    /// The key of the hashes of order ids.
    SecretKey,
    /// The keys of visitors' hashes.
    VisitorKeys,
    /// Which click ids were issued.
    ClickIds,
    /// Webhooks that wait.
    Outbox,
    /// Everything that was shipped.
    ClickHouse,
}

impl Loss {
    /// Every loss.
    pub const ALL: [Self; 9] = [
        Self::Checkpoint,
        Self::Batches,
        Self::Log,
        Self::DeadLetters,
        Self::SecretKey,
        Self::VisitorKeys,
        Self::ClickIds,
        Self::Outbox,
        Self::ClickHouse,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Batches => "batches",
            Self::Log => "log",
            Self::DeadLetters => "dead-letters",
            Self::SecretKey => "secret-key",
            Self::VisitorKeys => "visitor-keys",
            Self::ClickIds => "click-ids",
            Self::Outbox => "outbox",
            Self::ClickHouse => "clickhouse",
        }
    }

    /// What is lost with it: completes 'give up …'.
    #[must_use]
    pub fn given_up(self) -> &'static str {
        match self {
            Self::Checkpoint => "every hit of the log that is not in ClickHouse yet",
            Self::Batches => "the batches that were not known to be in ClickHouse",
            Self::Log => "the acknowledged hits that were not in ClickHouse",
            Self::DeadLetters => "the rows that ClickHouse had refused",
            Self::SecretKey => "the recognition of duplicates of the order ids so far",
            Self::VisitorKeys => "the clicks so far of visitors, who are not recognised any more",
            Self::ClickIds => "the certainty that no click id is issued twice",
            Self::Outbox => "the webhooks that waited to be delivered",
            Self::ClickHouse => "everything that was shipped to ClickHouse so far",
        }
    }
}

/// The subcommand's own flag.
pub(super) fn with_losses(command: clap::Command) -> clap::Command {
    command.arg(
        Arg::new("accept-loss")
            .long("accept-loss")
            .value_name("PART")
            .action(ArgAction::Append)
            .value_parser(PossibleValuesParser::new(Loss::ALL.map(Loss::as_str)))
            .help("Give up a part that is missing or damaged; what is left of it is moved aside. May be repeated"),
    )
}

/// What was asked for.
pub(super) fn losses(matches: &ArgMatches) -> Vec<Loss> {
    let named: Vec<&String> = matches.get_many("accept-loss").unwrap_or_default().collect();
    Loss::ALL.into_iter().filter(|loss| named.iter().any(|name| *name == loss.as_str())).collect()
}
