//! What all charts here have in common: paper, ink and how text is set.

mod axis;
mod bars;
mod lines;
mod look;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub(crate) use self::axis::Axis;
pub(crate) use self::bars::{Bar, BarPanel, draw_bars};
pub(crate) use self::lines::{Line, Panel, draw_lines};
pub(crate) use self::look::Look;

pub(crate) const WIDTH: u32 = 1240;
pub(crate) const FONT: &str = "Helvetica, Arial, sans-serif";
pub(crate) const INK: RGBColor = RGBColor(34, 34, 34);
pub(crate) const FAINT: RGBColor = RGBColor(110, 110, 110);
pub(crate) const LINE: RGBColor = RGBColor(225, 225, 225);

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The crate's errors borrow from its back end.
pub(crate) fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing the chart: {error}")
}

pub(crate) fn style(
    size: i32,
    color: RGBColor,
    horizontal: HPos,
    vertical: VPos,
) -> TextStyle<'static> {
    (FONT, size).into_font().color(&color).pos(Pos::new(horizontal, vertical))
}

/// What stands above the panels of a chart.
pub(crate) struct Head {
    pub(crate) title: String,
    pub(crate) note: String,
    /// What is told apart, and how it is drawn.
    pub(crate) legend: Vec<(String, Look)>,
}

/// Pixels from one line of a legend to the next.
const LEGEND_LINE: i32 = 24;
const LEGEND_TOP: i32 = 88;

impl Head {
    /// Returns where each entry of the legend begins, and how high all of the head is.
    fn layout(&self) -> (Vec<(i32, i32)>, u32) {
        let (mut left, mut top) = (24, LEGEND_TOP);
        let mut places = Vec::new();
        for (name, _) in &self.legend {
            // The font's own widths are the viewer's matter: 8 pixels a letter are enough.
            let width = 60 + 8 * i32::try_from(name.len()).unwrap_or(0);
            if left + width > WIDTH.cast_signed() {
                (left, top) = (24, top + LEGEND_LINE);
            }
            places.push((left, top));
            left += width;
        }
        let bottom = if self.legend.is_empty() { LEGEND_TOP - 16 } else { top + 20 };
        (places, bottom.unsigned_abs())
    }

    fn height(&self) -> u32 {
        self.layout().1
    }

    fn draw(&self, area: &Area<'_>) -> Result<()> {
        let place = Pos::new(HPos::Left, VPos::Center);
        let bold = (FONT, 23, FontStyle::Bold).into_font().color(&INK).pos(place);
        area.draw_text(&self.title, &bold, (24, 28)).map_err(failed)?;
        let faint = style(15, FAINT, HPos::Left, VPos::Center);
        area.draw_text(&self.note, &faint, (24, 57)).map_err(failed)?;
        let ink = style(15, INK, HPos::Left, VPos::Center);
        for ((name, look), (left, top)) in self.legend.iter().zip(self.layout().0) {
            look.draw_line(area, vec![(left, top), (left + 34, top)])?;
            look.draw_mark(area, (left + 17, top))?;
            area.draw_text(name, &ink, (left + 42, top)).map_err(failed)?;
        }
        Ok(())
    }
}
