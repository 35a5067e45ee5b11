use super::*;

/// The one byte that begins no value.
const NEVER_USED: u8 = 0xc1;

fn limits() -> ScanLimits {
    ScanLimits::default()
}

fn check(body: &[u8]) -> Result<(), ScanError> {
    scan(body, &limits())
}

/// One element of every first byte, with the payload it declares (sizes of one byte each).
fn sample(marker: u8) -> Vec<u8> {
    let mut bytes = vec![marker];
    let fixed = |n: usize| vec![0x7f; n];
    bytes.extend(match marker {
        0x80..=0x8f => fixed(2 * usize::from(marker & 0x0f)),
        0x90..=0x9f => fixed(usize::from(marker & 0x0f)),
        0xa0..=0xbf => fixed(usize::from(marker & 0x1f)),
        0xc4 | 0xd9 => [vec![3], fixed(3)].concat(),
        0xc5 | 0xda => [vec![0, 3], fixed(3)].concat(),
        0xc6 | 0xdb => [vec![0, 0, 0, 3], fixed(3)].concat(),
        0xc7 => [vec![3, 9], fixed(3)].concat(),
        0xc8 => [vec![0, 3, 9], fixed(3)].concat(),
        0xc9 => [vec![0, 0, 0, 3, 9], fixed(3)].concat(),
        0xcc | 0xd0 => fixed(1),
        0xcd | 0xd1 | 0xd4 => fixed(2),
        0xca | 0xce | 0xd2 => fixed(4),
        0xcb | 0xcf | 0xd3 => fixed(8),
        0xd5 => fixed(3),
        0xd6 => fixed(5),
        0xd7 => fixed(9),
        0xd8 => fixed(17),
        0xdc => [vec![0, 3], fixed(3)].concat(),
        0xdd => [vec![0, 0, 0, 3], fixed(3)].concat(),
        0xde => [vec![0, 3], fixed(6)].concat(),
        0xdf => [vec![0, 0, 0, 3], fixed(6)].concat(),
        _ => Vec::new(),
    });
    bytes
}

#[test]
fn every_first_byte_is_known() {
    for marker in (0..=255).filter(|m| *m != NEVER_USED) {
        let body = sample(marker);
        assert_eq!(check(&body), Ok(()), "{marker:#x}");
        assert_eq!(value_len(&body), Ok(body.len()), "{marker:#x}");
        let more = [&body[..], &[0xc0]].concat();
        assert_eq!(check(&more), Err(ScanError::Trailing { bytes: 1 }), "{marker:#x}");
        assert_eq!(value_len(&more), Ok(body.len()), "{marker:#x}");
        for cut in 0..body.len() {
            let error = Err(ScanError::Truncated { bytes: cut });
            assert_eq!(check(&body[..cut]), error, "{marker:#x} cut at {cut}");
            assert_eq!(value_len(&body[..cut]).map(drop), error, "{marker:#x} cut at {cut}");
        }
    }
    assert_eq!(check(&[0x91, NEVER_USED]), Err(ScanError::Reserved { at: 1 }));
    assert_eq!(value_len(&[NEVER_USED]), Err(ScanError::Reserved { at: 0 }));
}

#[test]
fn all_of_them_in_one_array_come_out_as_one_value() {
    let all: Vec<Vec<u8>> = (0..=255).filter(|m| *m != NEVER_USED).map(sample).collect();
    let mut body = vec![0xdc, 0, 255];
    body.extend(all.concat());
    assert_eq!(check(&body), Ok(()));
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| [vec![0x91; depth - 1], vec![0x90]].concat();
    assert_eq!(check(&nested(32)), Ok(()));
    assert_eq!(check(&nested(33)), Err(ScanError::Depth { max: 32 }));
    let generous = ScanLimits { depth_max: 1_000, ..limits() };
    assert_eq!(scan(&nested(33), &generous), Err(ScanError::Depth { max: 32 }), "clamped");
    let strict = ScanLimits { depth_max: 2, ..limits() };
    assert_eq!(scan(&nested(2), &strict), Ok(()));
    assert_eq!(scan(&nested(3), &strict), Err(ScanError::Depth { max: 2 }));
    assert_eq!(check(&[0x91; 5_000]), Err(ScanError::Depth { max: 32 }));
}

#[test]
fn width_does_not_count_as_depth() {
    let mut body = vec![0xdc, 0x03, 0xe8];
    body.extend([0x91, 0x91, 0x90].repeat(1_000));
    assert_eq!(check(&body), Ok(()));
}

#[test]
fn elements_are_counted_through_all_levels() {
    let strict = ScanLimits { elements_max: 6, ..limits() };
    assert_eq!(scan(&[0x92, 0x92, 1, 2, 0x92, 3, 4], &strict), Ok(()));
    let error = Err(ScanError::Elements { count: 7, max: 6 });
    assert_eq!(scan(&[0x92, 0x92, 1, 2, 0x93, 3, 4, 5], &strict), error);
    assert_eq!(scan(&[0x91, 0x83, 1, 2, 3, 4, 5, 6], &strict), error, "a map's keys count");
}

#[test]
fn bytes_as_numbers_are_told_what_to_do() {
    let mut body = vec![0x91, 0xdd, 0, 1, 0, 0];
    body.resize(body.len() + 65_536, 7);
    let error = check(&body).expect_err("65 537 elements");
    assert_eq!(
        error.to_string(),
        "65 537 elements; at most 65 536: send bytes as bin, not as an array of numbers"
    );
}

#[test]
fn never_more_elements_than_bytes_left() {
    assert_eq!(check(&[0x92, 0x92, 1, 2]), Err(ScanError::Truncated { bytes: 4 }));
    // One declared element too many, deep inside: refused where it is declared.
    assert_eq!(check(&[0x92, 0x91, 0x91, 0x91, 1]), Err(ScanError::Truncated { bytes: 5 }));
    assert_eq!(check(&[0xdd, 0, 0, 1, 0, 0]), Err(ScanError::Truncated { bytes: 6 }));
    let huge = [0xdd, 0xff, 0xff, 0xff, 0xff].repeat(1_000);
    assert!(matches!(check(&huge), Err(ScanError::Elements { count: 0xffff_ffff, .. })));
}

#[test]
fn payloads_end_inside_the_frame() {
    assert_eq!(check(&[0xc6, 0xff, 0xff, 0xff, 0xff]), Err(ScanError::Truncated { bytes: 5 }));
    assert_eq!(check(&[0x92, 0xc4, 2, 0, 0]), Err(ScanError::Truncated { bytes: 5 }));
    assert_eq!(check(&[0x91, 0xa2, 0]), Err(ScanError::Truncated { bytes: 3 }));
    assert_eq!(check(&[0xc7, 0xff, 0]), Err(ScanError::Truncated { bytes: 3 }));
    assert_eq!(check(&[]), Err(ScanError::Truncated { bytes: 0 }));
}

#[test]
fn an_unframed_value_is_bounded_in_bytes() {
    let strict = ScanLimits { bytes_max: 100, ..limits() };
    let refused = |bytes: u64| Progress::Refused(ScanError::Length { bytes, max: 100 });
    assert_eq!(Scanner::new().resume(&[0xc4, 99], &strict), refused(101));
    assert_eq!(Scanner::new().resume(&[0xc4, 98], &strict), Progress::NeedMore);
    assert_eq!(Scanner::new().resume(&[0xdc, 0, 98], &strict), refused(101));
    // 97 values are still to come, of which the first takes 15 bytes.
    assert_eq!(Scanner::new().resume(&[0xdc, 0, 97, 0xc4, 3], &strict), refused(104));
    let four_gib = [0x91, 0xdb, 0xff, 0xff, 0xff, 0xff];
    assert!(matches!(Scanner::new().resume(&four_gib, &limits()), Progress::Refused(_)));
}

#[test]
fn a_scan_goes_on_where_it_stopped() {
    let all: Vec<Vec<u8>> = (0..=255).filter(|m| *m != NEVER_USED).map(sample).collect();
    let mut body = vec![0xdc, 0, 255];
    body.extend(all.concat());
    body.push(0xc0);
    let length = body.len() - 1;
    let mut whole = Scanner::new();
    assert_eq!(whole.resume(&body, &limits()), Progress::Done(length));
    let mut scanner = Scanner::new();
    for cut in 0..length {
        assert_eq!(scanner.resume(&body[..cut], &limits()), Progress::NeedMore, "at {cut}");
        assert!(scanner.bytes_min() <= length, "at {cut}");
    }
    assert_eq!(scanner.resume(&body, &limits()), Progress::Done(length));
    // Cut at every byte: each element is looked at once, or once more for each byte of the number
    // in its header (at most four), however long the message is.
    assert!(scanner.steps <= 5 * whole.steps, "{} for {}", scanner.steps, whole.steps);
}

#[test]
fn a_scanner_tells_how_much_is_missing() {
    let mut scanner = Scanner::new();
    assert_eq!(scanner.resume(&[0x93, 0xc4, 100, 0], &limits()), Progress::NeedMore);
    assert_eq!(scanner.bytes_min(), 1 + 102 + 2);
}

#[test]
fn a_message_cut_at_every_byte_costs_linear_work() {
    let steps = |elements: u16| {
        let mut body = vec![0xdc];
        body.extend(elements.to_be_bytes());
        body.extend([0xcd, 1, 2].repeat(usize::from(elements)));
        let mut scanner = Scanner::new();
        for cut in 0..body.len() {
            assert_eq!(scanner.resume(&body[..cut], &limits()), Progress::NeedMore);
        }
        assert_eq!(scanner.resume(&body, &limits()), Progress::Done(body.len()));
        scanner.steps
    };
    assert_eq!(steps(100), 103);
    assert_eq!(steps(10_000), 10_003);
}

#[test]
fn what_is_refused_whole_is_refused_in_pieces() {
    let bodies: [&[u8]; 4] =
        [&[0x91; 40], &[0x92, 0xc0, 0xc1], &[0xdd, 0xff, 0xff, 0xff, 0xff], &[0xdf, 0, 2, 0, 0]];
    for body in bodies {
        let whole = Scanner::new().resume(body, &limits());
        assert!(matches!(whole, Progress::Refused(_)), "{body:?}");
        let mut scanner = Scanner::new();
        let progress = (0..=body.len())
            .map(|cut| scanner.resume(&body[..cut], &limits()))
            .find(|progress| *progress != Progress::NeedMore);
        assert_eq!(progress, Some(whole), "{body:?}");
    }
}
