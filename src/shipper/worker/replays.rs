//! Dead letters on their way again.

use super::{Step, Surroundings, Worker};
use crate::{
    core::Record,
    dedup::SettledKey,
    shipper::{
        ShipError,
        batch::Batch,
        cut::{Cut, LateDuplicate, Origin},
        dead_letters::{self, Letter},
        decide::Undecided,
        warehouse::Warehouse,
    },
};

impl Worker {
    /// Cuts the dead letters that are on their way again. Idle: none of them can be read.
    pub(super) async fn cut_replays<W: Warehouse>(
        &mut self,
        around: &Surroundings<W>,
        names: Vec<String>,
    ) -> Result<Step, ShipError> {
        let (mut records, mut files, mut late) = (Vec::new(), Vec::new(), Vec::new());
        let mut batch = Batch::new(self.checkpoint.position);
        for name in names {
            let json = around.folder.read_replay(&name)?;
            match dead_letters::read(&name, &json) {
                Ok(letter) => {
                    let row = match &letter {
                        Letter::Record(record) => (**record).clone(),
                        Letter::LateDuplicate { refusal, .. } => Record::Refusal(refusal.clone()),
                    };
                    // The rest goes into another cut, of its own month.
                    if !batch.admits(&row, json.len(), around.config.limits) {
                        continue;
                    }
                    batch.push(row, json.len(), self.checkpoint.position);
                    files.push(name);
                    match letter {
                        Letter::Record(record) => records.push(*record),
                        Letter::LateDuplicate { refusal, key } => {
                            let counted = refusal.original_id.or(refusal.conversion_id);
                            if let Some(counted) = counted {
                                late.push(LateDuplicate { refusal, key: SettledKey { key, counted } });
                            }
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "a dead letter can't be replayed; it is laid down again");
                    around.folder.stop_replay(&name)?;
                }
            }
        }
        if files.is_empty() {
            return Ok(Step::Idle);
        }
        let (from, to) = (batch.from, batch.to);
        let undecided = Undecided { records, from, to, all: true };
        let Some(mut content) = self.decider.decide(around, undecided).await? else {
            return Ok(Step::Stopped);
        };
        content.late.extend(late);
        let id = self.next_id(around)?;
        let cut = Cut::new(id, None, Origin::DeadLetters(files), &content);
        self.keep(around, cut, content)?;
        Ok(Step::Worked)
    }
}
