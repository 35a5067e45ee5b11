//! What the pages have in common: the head, and how text and tables look.

use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = "body{font:15px/1.5 Helvetica,Arial,sans-serif;color:#222;max-width:1360px;\
    margin:1em auto;padding:0 1em}svg{max-width:100%;height:auto}\
    table{border-collapse:collapse;font-size:13px;margin:.4em 0 .6em}\
    td,th{padding:.15em .5em;text-align:right;vertical-align:top;border-bottom:1px solid #ddd}\
    th{font-weight:600;vertical-align:bottom}td{white-space:nowrap}\
    code{background:#f4f4f4;padding:.1em .3em;overflow-wrap:anywhere}";

/// Returns a page with this title and what it says, `style` added to what all pages look like.
pub(crate) fn document(title: &str, style: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { (title) }
                style { (PreEscaped(STYLE)) (PreEscaped(style)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}
