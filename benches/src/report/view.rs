//! What the runs of one trial say together: medians, spreads, ratios within a run.

use super::plan::{Group, Section, Trial};
use super::store::{Entry, Stored};
use crate::message::Row;
use crate::options::ServerKind;
use crate::stats::Spread;

/// The runs of one trial, beside those of the group's bare server.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    stored: &'a Stored,
    section: Section,
    group: &'a Group,
    pub(super) trial: &'a Trial,
}

/// Returns what there is of each of a group's trials.
pub(super) fn views<'a>(
    stored: &'a Stored,
    section: Section,
    group: &'a Group,
) -> impl Iterator<Item = View<'a>> + Clone {
    group.trials.iter().map(move |trial| View { stored, section, group, trial })
}

impl<'a> View<'a> {
    pub(super) fn entries(&self) -> impl Iterator<Item = &'a Entry> + Clone + use<'a> {
        self.stored.of(self.section, self.trial)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &'a Row> + Clone + use<'a> {
        self.entries().filter_map(|entry| entry.row.as_ref())
    }

    /// Returns any of its rows, for what is the same in all.
    pub(super) fn any(&self) -> Option<&'a Row> {
        self.rows().next()
    }

    pub(super) fn spread(&self, number: impl Fn(&Row) -> f64) -> Option<Spread> {
        Spread::of(self.rows().map(number).filter(|number| number.is_finite()))
    }

    pub(super) fn median(&self, number: impl Fn(&Row) -> f64) -> Option<f64> {
        self.spread(number).map(|spread| spread.median)
    }

    /// Returns the number over that of the group's first bare server of the same run; `None` for that
    /// server itself.
    ///
    /// A machine that is shared is slower in one minute than in the next: what is compared was
    /// measured in one run, one right after the other.
    pub(super) fn ratio(&self, number: impl Fn(&Row) -> f64) -> Option<Spread> {
        let base = self.group.trials.iter().find(|trial| trial.server == ServerKind::Raw)?;
        if base.is_same(self.trial) {
            return None;
        }
        let beside = |run| {
            let mut others = self.stored.of(self.section, base);
            others.find(|entry| entry.run == run).and_then(|entry| entry.row.as_ref())
        };
        let ratios = self
            .entries()
            .filter_map(|entry| Some(number(entry.row.as_ref()?) / number(beside(entry.run)?)));
        Spread::of(ratios.filter(|ratio| ratio.is_finite()))
    }
}
