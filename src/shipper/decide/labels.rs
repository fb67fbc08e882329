//! Which clicks statistics name by campaign and variant, and which count as `(other)`.

use super::{Surroundings, Warehouse, ask};
use crate::core::{Click, CountedClick, Day, Label, LabelBook};

/// The combinations of the day that clicks are decided for. Only a copy: it is read from ClickHouse for the first click
/// of a day that is met, and what was decided since is in ClickHouse before the next batch is.
#[derive(Debug, Default)]
pub(super) struct Labels {
    book: Option<LabelBook>,
}

impl Labels {
    /// Labels clicks in their order. A click of a day that is over (a dead letter) counts as one of the newest day.
    /// `None`: told to stop before it was decided.
    pub(super) async fn label<W: Warehouse>(
        &mut self,
        around: &Surroundings<W>,
        clicks: Vec<Click>,
    ) -> Option<Vec<CountedClick>> {
        let mut counted = Vec::with_capacity(clicks.len());
        for click in clicks {
            let labelled = self.admit(around, &click).await?;
            counted.push(CountedClick { click, labelled });
        }
        Some(counted)
    }

    /// Whether statistics name the click's combination. It is the same answer whenever it is asked again that day, so a
    /// click may be asked about before it comes, for a conversion that it earned.
    pub(super) async fn admit<W: Warehouse>(
        &mut self,
        around: &Surroundings<W>,
        click: &Click,
    ) -> Option<bool> {
        let day = Day::of(click.received_at);
        if self.book.as_ref().is_none_or(|book| book.day() < day) {
            let asking = "the day's labels can't be read yet";
            self.book = Some(ask(around, asking, async || around.warehouse.label_book(day).await).await?);
        }
        self.book.as_mut().map(|book| book.admit(&Label::of(click)))
    }
}
