//! A chart of lying bars with their numbers beside them, in panels.

use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{Area, FAINT, FONT, Head, INK, LINE, Look, WIDTH, failed, style};

const BAR_HEIGHT: i32 = 22;
const BAR_STEP: i32 = 34;
const PANEL_TOP: i32 = 56;
/// Pixels left of the bars for the names, and right of the longest for its number.
const NAME_WIDTH: i32 = 130;
const NUMBER_WIDTH: i32 = 160;
const COLUMNS: usize = 2;

/// What is compared in one unit.
pub(crate) struct BarPanel {
    pub(crate) title: String,
    pub(crate) note: String,
    pub(crate) bars: Vec<Bar>,
}

pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) look: Look,
    /// `None`: it was not measured.
    pub(crate) number: Option<f64>,
    pub(crate) text: String,
}

/// Returns the chart as SVG.
pub(crate) fn draw_bars(head: &Head, panels: &[BarPanel]) -> Result<String> {
    let most = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
    let panel_height = PANEL_TOP + BAR_STEP * i32::try_from(most)? + 24;
    let rows = panels.len().div_ceil(COLUMNS).max(1);
    let height = head.height() + panel_height.unsigned_abs() * u32::try_from(rows)?;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        head.draw(&area)?;
        let (_, body) = area.split_vertically(head.height());
        for (place, panel) in body.split_evenly((rows, COLUMNS)).iter().zip(panels) {
            draw_panel(place, panel)?;
        }
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

fn draw_panel(place: &Area<'_>, panel: &BarPanel) -> Result<()> {
    let bold = (FONT, 16, FontStyle::Bold).into_font().color(&INK);
    place.draw_text(&panel.title, &bold, (24, 6)).map_err(failed)?;
    let faint = style(14, FAINT, HPos::Left, VPos::Top);
    place.draw_text(&panel.note, &faint, (24, 28)).map_err(failed)?;
    let left = NAME_WIDTH;
    let width = f64::from(place.dim_in_pixel().0) - f64::from(left + NUMBER_WIDTH);
    let most = panel.bars.iter().filter_map(|bar| bar.number).fold(0.0, f64::max);
    let names = style(15, INK, HPos::Right, VPos::Center);
    let numbers = style(15, INK, HPos::Left, VPos::Center);
    for (number, bar) in (0..).zip(&panel.bars) {
        let top = PANEL_TOP + BAR_STEP * number;
        let middle = top + BAR_HEIGHT / 2;
        place.draw_text(&bar.name, &names, (left - 10, middle)).map_err(failed)?;
        let share = bar.number.unwrap_or(0.0) / most.max(f64::MIN_POSITIVE);
        #[expect(clippy::cast_possible_truncation, reason = "pixels of a chart")]
        let right = left + (share * width).round() as i32;
        let corners = [(left, top), (right, top + BAR_HEIGHT)];
        place.draw(&Rectangle::new(corners, bar.look.color().filled())).map_err(failed)?;
        place.draw_text(&bar.text, &numbers, (right + 8, middle)).map_err(failed)?;
    }
    let bottom = PANEL_TOP + BAR_STEP * i32::try_from(panel.bars.len())? - BAR_STEP + BAR_HEIGHT;
    let base = PathElement::new([(left, PANEL_TOP - 4), (left, bottom + 4)], LINE.stroke_width(2));
    place.draw(&base).map_err(failed)
}
