//! A chart of lines, in one or more panels.

use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{Area, Axis, FAINT, FONT, Head, INK, LINE, Look, WIDTH, failed, style};

const PANEL_HEIGHT: u32 = 400;

/// A pair of scales and what is drawn on them.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
}

/// A line through points. What cannot stand on the scales is left out.
pub(crate) struct Line {
    pub(crate) look: Look,
    pub(crate) points: Vec<(f64, f64)>,
    /// Those of the points that have a mark.
    pub(crate) marks: Vec<(f64, f64)>,
    /// Upright strokes: x, and from where to where.
    pub(crate) spreads: Vec<(f64, f64, f64)>,
}

/// Returns the chart as SVG, its panels in rows of `columns`.
pub(crate) fn draw_lines(head: &Head, panels: &[Panel], columns: usize) -> Result<String> {
    let rows = panels.len().div_ceil(columns).max(1);
    let height = head.height() + PANEL_HEIGHT * u32::try_from(rows)?;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        head.draw(&area)?;
        let (_, body) = area.split_vertically(head.height());
        for (place, panel) in body.split_evenly((rows, columns)).iter().zip(panels) {
            draw_panel(&area, place, panel)?;
        }
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

fn draw_panel(whole: &Area<'_>, place: &Area<'_>, panel: &Panel) -> Result<()> {
    let bold = (FONT, 16, FontStyle::Bold).into_font().color(&INK);
    place.draw_text(&panel.title, &bold, (84, 8)).map_err(failed)?;
    let (x, y) = (&panel.x, &panel.y);
    let mut chart = ChartBuilder::on(place)
        .margin_top(38)
        .margin_right(30)
        .margin_left(12)
        .margin_bottom(10)
        .x_label_area_size(46)
        .y_label_area_size(72)
        .build_cartesian_2d(x.clone(), y.clone())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(LINE)
        .axis_style(FAINT)
        .x_labels(x.labels())
        .y_labels(y.labels())
        .label_style(style(14, INK, HPos::Center, VPos::Center))
        .x_desc(&x.label)
        .y_desc(&y.label)
        .axis_desc_style((FONT, 14).into_font().color(&FAINT))
        .draw()
        .map_err(failed)?;
    let pixel = |point: &(f64, f64)| chart.backend_coord(point);
    let is_inside = |point: &&(f64, f64)| x.holds(point.0) && y.holds(point.1);
    for line in &panel.lines {
        for &(at, least, greatest) in &line.spreads {
            let ends = [(at, least), (at, greatest)];
            if ends.iter().all(|end| is_inside(&end)) {
                let stroke = line.look.color().stroke_width(1);
                let path: Vec<_> = ends.iter().map(pixel).collect();
                whole.draw(&PathElement::new(path, stroke)).map_err(failed)?;
            }
        }
        let path: Vec<_> = line.points.iter().filter(is_inside).map(pixel).collect();
        if path.len() > 1 {
            line.look.draw_line(whole, path)?;
        }
    }
    // Marks over all lines: what is beneath them is seen elsewhere.
    for line in &panel.lines {
        for mark in line.marks.iter().filter(is_inside) {
            line.look.draw_mark(whole, pixel(mark))?;
        }
    }
    if panel.lines.iter().all(|line| line.points.is_empty()) {
        let middle = pixel(&(x.middle(), y.middle()));
        let faint = style(15, FAINT, HPos::Center, VPos::Center);
        whole.draw_text("nothing was measured", &faint, middle).map_err(failed)?;
    }
    Ok(())
}
