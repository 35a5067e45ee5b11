//! The chart: one panel for each policy, one group of bars for each level.

use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Policy;
use super::count::Row;
use super::report::Report;
use crate::chart::{Area, FAINT, FONT, INK, LINE, WIDTH, failed, style};
use crate::show::grouped;

pub(super) const TITLE: &str = "What becomes of calls when connections are cut at random";

const HEAD: u32 = 112;
const PANEL_HEIGHT: u32 = 350;

// Colours that people with any colour vision tell apart: Okabe and Ito, *Color Universal Design*.
const TWICE: RGBColor = RGBColor(213, 94, 0);
const LOST_UNKNOWN: RGBColor = RGBColor(0, 88, 140);
const LOST_NOT_RUN: RGBColor = RGBColor(134, 196, 236);
const UNTOLD: RGBColor = RGBColor(175, 175, 175);

/// Where a group's bars stand beside its middle, and how wide they are, in groups.
const OFFSETS: [f64; 3] = [-0.29, 0.0, 0.29];
const BAR: f64 = 0.25;

/// Returns the chart as SVG.
pub(super) fn draw(report: &Report) -> Result<String> {
    let mut policies: Vec<Policy> = Vec::new();
    for row in &report.rows {
        if !policies.contains(&row.policy) {
            policies.push(row.policy);
        }
    }
    let columns = policies.len().clamp(1, 2);
    let lines = policies.len().div_ceil(columns);
    let height = HEAD + PANEL_HEIGHT * u32::try_from(lines)?;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        let (head, body) = area.split_vertically(HEAD);
        draw_head(&head, report)?;
        let most = share_max(&report.rows);
        for (panel, policy) in body.split_evenly((lines, columns)).iter().zip(policies) {
            let rows: Vec<&Row> = report.rows.iter().filter(|row| row.policy == policy).collect();
            draw_panel(panel, policy, &rows, most)?;
        }
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

fn draw_head(head: &Area<'_>, report: &Report) -> Result<()> {
    let text = |text: &str, size, color, place| {
        head.draw_text(text, &style(size, color, HPos::Left, VPos::Center), place).map_err(failed)
    };
    let title = (FONT, 25, FontStyle::Bold).into_font().color(&INK);
    head.draw_text(TITLE, &title.pos(Pos::new(HPos::Left, VPos::Center)), (24, 28))
        .map_err(failed)?;
    text(&format!("{}. Bars are shares, numbers are counts.", report.load()), 15, FAINT, (24, 58))?;
    let mut left = 24;
    for (color, name, width) in [
        (TWICE, "run twice or more", 175),
        (LOST_UNKNOWN, "lost, and the caller cannot know", 275),
        (LOST_NOT_RUN, "lost, and the caller was told: not run", 310),
        (UNTOLD, "run once, but the caller was not told", 300),
    ] {
        let square = Rectangle::new([(left, 83), (left + 14, 97)], color.filled());
        head.draw(&square).map_err(failed)?;
        text(name, 15, INK, (left + 21, 90))?;
        left += width;
    }
    Ok(())
}

fn headline(policy: Policy) -> (&'static str, &'static str) {
    match policy {
        Policy::ExactlyOnce => (
            "Exactly once",
            "Onceloop's default: sent again under the same xid, in the same session",
        ),
        Policy::AtMostOnce => {
            ("At most once", "Onceloop: sent once, its answer asked for in the same session")
        }
        Policy::BlindRetry => (
            "Blind retry",
            "no xid: made again as a new call on a new connection until it succeeds",
        ),
        Policy::NoRetry => ("No retry", "no xid: given up with its connection"),
    }
}

fn draw_panel(panel: &Area<'_>, policy: Policy, rows: &[&Row], most: f64) -> Result<()> {
    let (name, meaning) = headline(policy);
    let bold = (FONT, 18, FontStyle::Bold).into_font().color(&INK);
    panel.draw_text(name, &bold, (62, 14)).map_err(failed)?;
    let faint = style(14, FAINT, HPos::Left, VPos::Top);
    panel.draw_text(meaning, &faint, (62, 38)).map_err(failed)?;
    let right = middle(rows.len()) - 0.5;
    let mut chart = ChartBuilder::on(panel)
        .margin_top(64)
        .margin_right(16)
        .margin_left(10)
        .margin_bottom(8)
        .x_label_area_size(48)
        .y_label_area_size(52)
        .build_cartesian_2d(-0.5..right, 0.0..most)
        .map_err(failed)?;
    let label = |x: &f64| {
        let row = rows.iter().enumerate().find(|(place, _)| (middle(*place) - x).abs() < 1e-6);
        row.map_or_else(String::new, |(_, row)| row.calls_per_cut.to_string())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(LINE)
        .axis_style(FAINT)
        .x_labels(2 * rows.len())
        .x_label_formatter(&label)
        .y_labels(5)
        .y_label_formatter(&|share| format!("{share:.0} %"))
        .label_style(style(14, INK, HPos::Center, VPos::Center))
        .x_desc("mean number of calls between cuts of a connection (the fewer, the more cuts)")
        .axis_desc_style((FONT, 14).into_font().color(&FAINT))
        .draw()
        .map_err(failed)?;
    if rows.iter().all(|row| row.tally.run_once == row.tally.calls && row.tally.run_untold == 0) {
        let calls = rows.iter().map(|row| row.tally.calls).sum();
        let text = format!("all {} calls ran once, and their callers know", grouped(calls));
        let place = ((right - 0.5) / 2.0, most / 2.0);
        let text = Text::new(text, place, style(16, INK, HPos::Center, VPos::Center));
        chart.draw_series([text]).map_err(failed)?;
    }
    for (place, row) in rows.iter().enumerate() {
        for (offset, parts) in OFFSETS.into_iter().zip(bars(row)) {
            let middle = middle(place) + offset;
            let sum: u64 = parts.iter().map(|(count, _)| count).sum();
            let mut from = 0;
            for (count, color) in parts {
                let edges = [share(from, row), share(from + count, row)];
                let corners = [(middle - BAR / 2.0, edges[0]), (middle + BAR / 2.0, edges[1])];
                let bar = Rectangle::new(corners, color.filled());
                chart.draw_series([bar]).map_err(failed)?;
                from += count;
            }
            let color = if sum == 0 { FAINT } else { INK };
            let text = EmptyElement::at((middle, share(sum, row)))
                + Text::new(grouped(sum), (0, -3), style(13, color, HPos::Center, VPos::Bottom));
            chart.draw_series([text]).map_err(failed)?;
        }
    }
    Ok(())
}

/// Returns a group's bars, each from the bottom up.
fn bars(row: &Row) -> [Vec<(u64, RGBColor)>; 3] {
    let tally = &row.tally;
    [
        vec![(tally.run_twice, TWICE)],
        vec![(tally.lost_unknown, LOST_UNKNOWN), (tally.lost_not_run, LOST_NOT_RUN)],
        vec![(tally.run_untold, UNTOLD)],
    ]
}

/// Returns the top of the scale, the same for all panels, in percent.
fn share_max(rows: &[Row]) -> f64 {
    let highest = rows.iter().flat_map(|row| {
        bars(row).map(|parts| share(parts.iter().map(|(count, _)| count).sum(), row))
    });
    // Room for the number above the highest bar.
    (highest.fold(0.0, f64::max) * 1.15).max(1.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn share(count: u64, row: &Row) -> f64 {
    count as f64 * 100.0 / row.tally.calls.max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "a handful of levels")]
fn middle(place: usize) -> f64 {
    place as f64
}
