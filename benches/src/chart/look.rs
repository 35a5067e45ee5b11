//! How a line is drawn, so that it can be told from the others with colours and without.

use anyhow::Result;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::{Area, failed};

/// How a line is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dash {
    Solid,
    Dashed,
    Dotted,
}

#[derive(Clone, Copy, Debug)]
enum Mark {
    Circle,
    Cross,
    Diamond,
    Plus,
    Square,
    Triangle,
    TriangleDown,
}

/// The look of one line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    color: RGBColor,
    mark: Mark,
    is_filled: bool,
    dash: Dash,
}

/// One for each thing that is compared. Colours: Okabe and Ito, *Color Universal Design*, and darker
/// ones of their kind; no two share both mark and filling.
const LOOKS: [Look; 10] = [
    look(RGBColor(34, 34, 34), Mark::Circle, false, Dash::Dashed),
    look(RGBColor(213, 94, 0), Mark::Circle, true, Dash::Solid),
    look(RGBColor(0, 114, 178), Mark::Triangle, true, Dash::Solid),
    look(RGBColor(0, 158, 115), Mark::Square, true, Dash::Solid),
    look(RGBColor(170, 70, 130), Mark::Diamond, true, Dash::Solid),
    look(RGBColor(230, 159, 0), Mark::Cross, false, Dash::Dashed),
    look(RGBColor(60, 150, 210), Mark::TriangleDown, false, Dash::Dashed),
    look(RGBColor(120, 120, 120), Mark::Plus, false, Dash::Dashed),
    look(RGBColor(120, 60, 0), Mark::Square, false, Dash::Dotted),
    look(RGBColor(70, 60, 160), Mark::Diamond, false, Dash::Dotted),
];

const fn look(color: RGBColor, mark: Mark, is_filled: bool, dash: Dash) -> Look {
    Look { color, mark, is_filled, dash }
}

impl Look {
    /// Returns the look of the thing with this number.
    pub(crate) fn of(number: usize) -> Look {
        LOOKS[number % LOOKS.len()]
    }

    /// Returns that of another way to run the same thing: drawn with other dashes.
    pub(crate) fn variant(self, number: usize) -> Look {
        match number {
            0 => self,
            1 => Look { dash: Dash::Dashed, is_filled: false, ..self },
            2 => Look { dash: Dash::Dotted, mark: Mark::TriangleDown, is_filled: true, ..self },
            _ => Look { dash: Dash::Dotted, mark: Mark::TriangleDown, is_filled: false, ..self },
        }
    }

    pub(super) fn color(&self) -> RGBColor {
        self.color
    }

    /// Draws a line through these pixels.
    pub(super) fn draw_line(&self, area: &Area<'_>, points: Vec<(i32, i32)>) -> Result<()> {
        let stroke = self.color.stroke_width(2);
        let (on, off) = match self.dash {
            Dash::Solid => return area.draw(&PathElement::new(points, stroke)).map_err(failed),
            Dash::Dashed => (9, 5),
            Dash::Dotted => (2, 4),
        };
        area.draw(&DashedPathElement::new(points, on, off, stroke)).map_err(failed)
    }

    /// Draws a mark at this pixel.
    pub(super) fn draw_mark(&self, area: &Area<'_>, (x, y): (i32, i32)) -> Result<()> {
        let outline = self.color.stroke_width(2);
        let ring = match self.mark {
            Mark::Circle => {
                let inside = if self.is_filled { self.color } else { WHITE };
                area.draw(&Circle::new((x, y), 5, inside.filled())).map_err(failed)?;
                return area.draw(&Circle::new((x, y), 5, outline)).map_err(failed);
            }
            Mark::Cross | Mark::Plus => return self.draw_strokes(area, (x, y)),
            Mark::Diamond => vec![(x - 6, y), (x, y - 6), (x + 6, y), (x, y + 6)],
            Mark::Square => vec![(x - 5, y - 5), (x + 5, y - 5), (x + 5, y + 5), (x - 5, y + 5)],
            Mark::Triangle => vec![(x - 6, y + 4), (x, y - 7), (x + 6, y + 4)],
            Mark::TriangleDown => vec![(x - 6, y - 4), (x, y + 7), (x + 6, y - 4)],
        };
        let inside = if self.is_filled { self.color } else { WHITE };
        area.draw(&Polygon::new(ring.clone(), inside.filled())).map_err(failed)?;
        let closed: Vec<_> = ring.iter().chain(ring.first()).copied().collect();
        area.draw(&PathElement::new(closed, outline)).map_err(failed)
    }

    fn draw_strokes(&self, area: &Area<'_>, (x, y): (i32, i32)) -> Result<()> {
        let strokes = match self.mark {
            Mark::Plus => [[(x - 6, y), (x + 6, y)], [(x, y - 6), (x, y + 6)]],
            _ => [[(x - 5, y - 5), (x + 5, y + 5)], [(x - 5, y + 5), (x + 5, y - 5)]],
        };
        for stroke in strokes {
            area.draw(&PathElement::new(stroke, self.color.stroke_width(3))).map_err(failed)?;
        }
        Ok(())
    }
}
