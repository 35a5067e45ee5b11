use super::*;

/// A cell that holds a list of numbers.
struct Cell;

#[derive(Clone, Debug)]
enum Do {
    Append(u32),
    Get,
    Put(u32),
}

impl Model for Cell {
    type Operation = Do;
    type Output = Vec<u32>;
    type State = Vec<u32>;

    fn initial(&self) -> Vec<u32> {
        Vec::new()
    }

    fn apply(
        &self,
        state: &Vec<u32>,
        operation: &Do,
        output: Option<&Vec<u32>>,
    ) -> Option<Vec<u32>> {
        let mut next = state.clone();
        match operation {
            Do::Append(number) => next.push(*number),
            Do::Get => {}
            Do::Put(number) => next = vec![*number],
        }
        let answer = if matches!(operation, Do::Get) { next.clone() } else { Vec::new() };
        output.is_none_or(|output| *output == answer).then_some(next)
    }
}

type History = Vec<Entry<Do, Vec<u32>>>;

/// A write that was answered.
fn write(called: u64, returned: u64, operation: Do) -> Entry<Do, Vec<u32>> {
    Entry { called, returned: Some(returned), operation, output: Some(Vec::new()) }
}

/// A write of which nobody knows.
fn doubtful(called: u64, operation: Do) -> Entry<Do, Vec<u32>> {
    Entry { called, returned: None, operation, output: None }
}

fn get(called: u64, returned: u64, numbers: &[u32]) -> Entry<Do, Vec<u32>> {
    Entry { called, returned: Some(returned), operation: Do::Get, output: Some(numbers.to_vec()) }
}

#[track_caller]
fn assert_is(expected: Verdict, history: &History) {
    assert_eq!(check(&Cell, history, 100_000), expected);
    // Nothing hangs on the order in which a history is written down.
    let backwards = history.iter().rev().cloned().collect::<History>();
    assert_eq!(check(&Cell, &backwards, 100_000), expected);
}

#[test]
fn no_operations_are_linearizable() {
    assert_is(Verdict::Linearizable, &vec![]);
}

#[test]
fn a_read_sees_the_write_before_it() {
    assert_is(Verdict::Linearizable, &vec![write(1, 2, Do::Put(10)), get(3, 4, &[10])]);
    assert_is(Verdict::NotLinearizable, &vec![write(1, 2, Do::Put(10)), get(3, 4, &[])]);
}

#[test]
fn a_read_during_a_write_sees_either() {
    for numbers in [&[][..], &[10][..]] {
        assert_is(Verdict::Linearizable, &vec![write(1, 4, Do::Put(10)), get(2, 3, numbers)]);
    }
    assert_is(Verdict::NotLinearizable, &vec![write(1, 4, Do::Put(10)), get(2, 3, &[20])]);
}

#[test]
fn what_one_read_has_seen_no_later_one_unsees() {
    let long = write(1, 10, Do::Put(10));
    let forwards = vec![long.clone(), get(2, 3, &[]), get(4, 5, &[10])];
    assert_is(Verdict::Linearizable, &forwards);
    let backwards = vec![long, get(2, 3, &[10]), get(4, 5, &[])];
    assert_is(Verdict::NotLinearizable, &backwards);
}

#[test]
fn a_put_that_comes_late_does_not_overwrite_a_newer_one() {
    let story =
        |seen: &[u32]| vec![write(1, 2, Do::Put(10)), write(3, 4, Do::Put(20)), get(5, 6, seen)];
    assert_is(Verdict::Linearizable, &story(&[20]));
    assert_is(Verdict::NotLinearizable, &story(&[10]));
}

#[test]
fn an_append_runs_once() {
    let append = write(1, 2, Do::Append(7));
    assert_is(Verdict::Linearizable, &vec![append.clone(), get(3, 4, &[7])]);
    assert_is(Verdict::NotLinearizable, &vec![append, get(3, 4, &[7, 7])]);
}

#[test]
fn what_nobody_knows_of_may_take_effect_late_or_never() {
    let doubt = doubtful(1, Do::Append(7));
    let late = vec![doubt.clone(), get(3, 4, &[]), get(5, 6, &[7]), get(7, 8, &[7])];
    assert_is(Verdict::Linearizable, &late);
    let never = vec![doubt.clone(), get(3, 4, &[]), get(5, 6, &[])];
    assert_is(Verdict::Linearizable, &never);
    let twice = vec![doubt.clone(), get(3, 4, &[7]), get(5, 6, &[7, 7])];
    assert_is(Verdict::NotLinearizable, &twice);
    let undone = vec![doubt.clone(), get(3, 4, &[7]), get(5, 6, &[])];
    assert_is(Verdict::NotLinearizable, &undone);
    let early = vec![get(0, 1, &[7]), Entry { called: 2, ..doubt }];
    assert_is(Verdict::NotLinearizable, &early);
}

#[test]
fn two_readers_agree_on_the_order_of_two_writers() {
    let writers = [write(1, 10, Do::Append(1)), write(2, 11, Do::Append(2))];
    let agree = [get(12, 13, &[2, 1]), get(14, 15, &[2, 1])];
    assert_is(Verdict::Linearizable, &[writers.to_vec(), agree.to_vec()].concat());
    let disagree = [get(12, 13, &[2, 1]), get(14, 15, &[1, 2])];
    assert_is(Verdict::NotLinearizable, &[writers.to_vec(), disagree.to_vec()].concat());
}

/// Histories of an object that works, with more than 64 operations and up to eight at a time; and
/// the same with one output changed.
#[test]
fn long_histories_are_decided() {
    let mut number = 1_u64;
    let mut next = |below: u64| {
        number =
            number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (number >> 33) % below
    };
    for round in 0..50 {
        let mut history = History::new();
        let mut state = Vec::new();
        for step in 0..90_u32 {
            let takes_effect = u64::from(step) * 100 + 400;
            let (called, returned) = (takes_effect - 1 - next(350), takes_effect + 1 + next(350));
            // Distinct times: the last two digits of effects are zero.
            let (called, returned) =
                (called * 1_000 + u64::from(step), returned * 1_000 + 500 + u64::from(step));
            let (operation, output) = match next(4) {
                0 => {
                    state = vec![step];
                    (Do::Put(step), vec![])
                }
                1 => {
                    state.push(step);
                    (Do::Append(step), vec![])
                }
                _ => (Do::Get, state.clone()),
            };
            history.push(Entry {
                called,
                returned: Some(returned),
                operation,
                output: Some(output),
            });
        }
        assert_is(Verdict::Linearizable, &history);
        let last_read =
            history.iter().rposition(|entry| matches!(entry.operation, Do::Get)).unwrap();
        history[last_read].output.as_mut().unwrap().push(1_000 + round);
        assert_is(Verdict::NotLinearizable, &history);
    }
}

#[test]
fn a_search_without_end_is_given_up() {
    let mut history: History = (0..20).map(|number| doubtful(number, Do::Append(0))).collect();
    history.push(get(100, 101, &[1]));
    assert_eq!(check(&Cell, &history, 1), Verdict::Undecided);
}
