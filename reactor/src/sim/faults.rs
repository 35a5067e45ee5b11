//! What goes wrong, and how often.

use std::time::Duration;

use super::Random;

/// How often each fault strikes, and for how long.
///
/// Rates of connections and segments are chances in a million; those of time are the mean time
/// between two strikes anywhere in the world, and zero means never. Made by [`Faults::none`] or
/// [`Faults::drawn`], and changed field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Faults {
    /// Connections that die after so many bytes in one direction, mid-frame as a rule: both ends
    /// are reset, or the receiver reads an early end and the sender is reset.
    pub cuts: u32,
    /// Connections that are reset at some time.
    pub resets: u32,
    /// Connections of which one direction ends early: after so many bytes the receiver reads the
    /// end, and what the sender writes from then on is taken and lost. The other way works on.
    pub half_closes: u32,
    /// Connections whose bytes vanish after so many, in one direction or both. Neither end is
    /// told; writes are taken until the buffers are full.
    pub black_holes: u32,
    /// Connections that come late, as from behind a proxy: established for the one that connects,
    /// which may write and leave; the listener is connected to, and given the bytes, after up to
    /// [`Faults::late_max`], though the server be another by then.
    pub late: u32,
    /// Connections of which one direction brings its bytes one by one for a while, so that each
    /// read finds one.
    pub one_byte_reads: u32,
    /// Connections of which one direction takes its bytes one by one for a while.
    pub one_byte_writes: u32,
    /// Segments that are held up, and what follows with them, for up to [`Faults::delay_max`].
    pub delays: u32,

    /// Two hosts (or all and one) no longer hear each other, or the one no longer hears the other.
    /// What was under way arrives when that is over.
    pub partitions_every: Duration,
    /// A host's process dies (its peers read the end, or a reset), or its machine does (they read
    /// nothing, until it is up again and knows nothing of them). It is started anew after up to
    /// [`Faults::down_max`].
    pub kills_every: Duration,
    /// A host stands still for up to [`Faults::stall_max`], as with a handler that blocks.
    pub stalls_every: Duration,
    /// A host's clock leaps forward by up to [`Faults::leap_max`].
    pub leaps_every: Duration,
    /// A host makes a turn without a cause, or a source is told of a readiness that is not there.
    pub spurious_every: Duration,
    /// How far a host's clock may be from the true rate, in parts of a million.
    pub drift_ppm_max: u32,

    /// The longest delay of a segment.
    pub delay_max: Duration,
    /// The latest that a late connection comes.
    pub late_max: Duration,
    /// The longest partition.
    pub partition_max: Duration,
    /// The longest that a host is down.
    pub down_max: Duration,
    /// The longest that a host stands still.
    pub stall_max: Duration,
    /// The farthest that a clock leaps at once.
    pub leap_max: Duration,
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

impl Faults {
    /// Nothing goes wrong: the network takes its time, and that is all.
    pub fn none() -> Self {
        Self {
            cuts: 0,
            resets: 0,
            half_closes: 0,
            black_holes: 0,
            late: 0,
            one_byte_reads: 0,
            one_byte_writes: 0,
            delays: 0,
            partitions_every: Duration::ZERO,
            kills_every: Duration::ZERO,
            stalls_every: Duration::ZERO,
            leaps_every: Duration::ZERO,
            spurious_every: Duration::ZERO,
            drift_ppm_max: 0,
            delay_max: Duration::from_secs(2),
            late_max: Duration::from_secs(30),
            partition_max: Duration::from_secs(10),
            down_max: Duration::from_secs(5),
            stall_max: Duration::from_secs(2),
            leap_max: Duration::from_secs(60),
        }
    }

    /// Draws the rates for a seed: some seeds are calm, some are wild, and in each about half of
    /// the faults are absent, so that every fault is met with and without every other.
    pub fn drawn(seed: u64) -> Self {
        let random = Random::new(seed).fork("faults");
        let mut mood = random.fork("mood");
        // Of eight seeds one is calm; in the others a fault is present with this chance.
        let presence = match mood.below(8) {
            0 => return Self::none(),
            1..=2 => 200_000,
            3..=5 => 450_000,
            _ => 750_000,
        };
        let draw = |label: &str, least: u64, most: u64| {
            let mut random = random.fork(label);
            if random.chance(presence) { random.spread(least, most) } else { 0 }
        };
        let per_million = |label, least, most| {
            u32::try_from(draw(label, least, most)).expect("at most a million")
        };
        let of_connections = |label| per_million(label, 20_000, 400_000);
        let every = |label, least, most| Duration::from_millis(draw(label, least, most));
        Self {
            cuts: of_connections("cuts"),
            resets: of_connections("resets"),
            half_closes: of_connections("half closes"),
            black_holes: of_connections("black holes"),
            late: of_connections("late"),
            one_byte_reads: of_connections("one byte reads"),
            one_byte_writes: of_connections("one byte writes"),
            delays: per_million("delays", 200, 100_000),
            partitions_every: every("partitions", 2_000, 60_000),
            kills_every: every("kills", 1_000, 60_000),
            stalls_every: every("stalls", 500, 30_000),
            leaps_every: every("leaps", 1_000, 60_000),
            spurious_every: every("spurious", 5, 1_000),
            drift_ppm_max: per_million("drift", 100, 50_000),
            ..Self::none()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_drawn_in_a_good_part_of_the_seeds_and_absent_in_a_good_part() {
        let drawn: Vec<Faults> = (0..1_000).map(Faults::drawn).collect();
        let share = |has: fn(&Faults) -> bool| drawn.iter().filter(|faults| has(faults)).count();
        let shares = [
            share(|f| f.cuts > 0),
            share(|f| f.resets > 0),
            share(|f| f.half_closes > 0),
            share(|f| f.black_holes > 0),
            share(|f| f.late > 0),
            share(|f| f.one_byte_reads > 0),
            share(|f| f.one_byte_writes > 0),
            share(|f| f.delays > 0),
            share(|f| !f.partitions_every.is_zero()),
            share(|f| !f.kills_every.is_zero()),
            share(|f| !f.stalls_every.is_zero()),
            share(|f| !f.leaps_every.is_zero()),
            share(|f| !f.spurious_every.is_zero()),
            share(|f| f.drift_ppm_max > 0),
        ];
        assert!(shares.iter().all(|share| (300..600).contains(share)), "{shares:?}");
        let calm = share(|faults| *faults == Faults::none());
        assert!((80..250).contains(&calm), "{calm}");
        assert_eq!(Faults::drawn(5), Faults::drawn(5));
    }
}
