//! Flame graphs: a function is as wide as the time spent in it and in what it calls; callees stand on their callers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// In pixels.
const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 10.0;
const ROW: usize = 17;
const HEAD: usize = 48;
const CHARACTER: f64 = 6.6;
/// Narrower than this nothing is drawn.
const LEAST: f64 = 0.3;

/// A function in the context of its callers.
#[derive(Default)]
struct Node {
    /// Periods, with those of its callees.
    all: u64,
    callees: BTreeMap<String, Node>,
}

impl Node {
    fn depth(&self) -> usize {
        self.callees.values().map(|n| 1 + n.depth()).max().unwrap_or(0)
    }
}

/// The SVG's text.
pub(crate) fn draw(stacks: &BTreeMap<Vec<String>, u64>, title: &str) -> String {
    let mut root = Node::default();
    for (stack, times) in stacks {
        root.all += times;
        let mut node = &mut root;
        for name in stack {
            node = node.callees.entry(name.clone()).or_default();
            node.all += times;
        }
    }
    let rows = root.depth();
    let height = HEAD + ROW * (rows + 1) + 10;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"monospace\" font-size=\"11\">\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"{}\" y=\"22\" text-anchor=\"middle\">{}</text>\n\
         <text id=\"told\" class=\"told\" x=\"{MARGIN}\" y=\"40\">Click a function to look closer, the ground to go back.</text>\n\
         <g id=\"graph\">\n",
        WIDTH / 2.0,
        escape(title)
    );
    let mut canvas = Canvas { out: &mut out, total: root.all.max(1), bottom: height - ROW - 6 };
    canvas.node("all", &root, 0, 0);
    let _ = write!(out, "</g>\n<script><![CDATA[{SCRIPT}]]></script>\n</svg>\n");
    out
}

struct Canvas<'a> {
    out: &'a mut String,
    total: u64,
    bottom: usize,
}

impl Canvas<'_> {
    /// Draws `node` in row `row`, with `before` periods to its left, and its callees on it.
    fn node(&mut self, name: &str, node: &Node, row: usize, before: u64) {
        let scale = (WIDTH - 2.0 * MARGIN) / self.total as f64;
        let (x, width) = (MARGIN + before as f64 * scale, node.all as f64 * scale);
        if width < LEAST {
            return;
        }
        let y = self.bottom - row * ROW;
        let share = 100.0 * node.all as f64 / self.total as f64;
        let shown = escape(&fit(name, width));
        let name = escape(name);
        let _ = writeln!(
            self.out,
            "<g class=\"f\" data-x=\"{x:.2}\" data-w=\"{width:.2}\"><title>{name}: {} samples, {share:.2} %</title>\
             <rect x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{}\" fill=\"{}\"/>\
             <text x=\"{:.2}\" y=\"{}\" data-n=\"{name}\">{shown}</text></g>",
            node.all,
            ROW - 1,
            colour(&name),
            x + 3.0,
            y + 12,
        );
        let mut before = before;
        for (name, callee) in &node.callees {
            self.node(name, callee, row + 1, before);
            before += callee.all;
        }
    }
}

/// As much of `name` as `width` pixels hold.
fn fit(name: &str, width: f64) -> String {
    let room = ((width - 6.0) / CHARACTER).max(0.0) as usize;
    match name.chars().count() {
        n if n <= room => name.to_owned(),
        _ if room < 3 => String::new(),
        _ => name.chars().take(room - 2).chain("..".chars()).collect(),
    }
}

/// Warm colours, the same for the same name.
fn colour(name: &str) -> String {
    let hash =
        name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let part = |shift: u32, room: u64| hash >> shift & 0xff & (room - 1);
    format!("rgb({},{},{})", 205 + part(8, 32), 90 + part(20, 128), 40 + part(32, 32))
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

const STYLE: &str = ".paper{fill:#fffdf8}.title{font-size:16px;fill:#222}.told{fill:#555}.f text{fill:#1a1008;pointer-events:none}\
.f:hover rect{stroke:#000;stroke-width:1}.f{cursor:pointer}\
@media(prefers-color-scheme:dark){.paper{fill:#1b1b1f}.title{fill:#eee}.told{fill:#aaa}.f:hover rect{stroke:#fff}}";

/// A click makes a function as wide as the picture, with its callers below and its callees above.
const SCRIPT: &str = r"
const all = [...document.querySelectorAll('.f')], told = document.getElementById('told'), W = 1180, M = 10;
const at = g => [parseFloat(g.dataset.x), parseFloat(g.dataset.w), parseFloat(g.children[1].getAttribute('y'))];
function look(x0, w0, y0) {
  for (const g of all) {
    const [x, w, y] = at(g), callee = y <= y0 && x >= x0 - .01 && x + w <= x0 + w0 + .01;
    const caller = y > y0 && x <= x0 + .01 && x + w >= x0 + w0 - .01;
    g.style.display = callee || caller ? '' : 'none';
    if (!callee && !caller) continue;
    const nx = caller ? M : M + (x - x0) * W / w0, nw = caller ? W : w * W / w0;
    const [, rect, text] = g.children, name = text.dataset.n, room = Math.floor((nw - 6) / 6.6);
    rect.setAttribute('x', nx); rect.setAttribute('width', nw); text.setAttribute('x', nx + 3);
    text.textContent = name.length <= room ? name : room < 3 ? '' : name.slice(0, room - 2) + '..';
  }
}
for (const g of all) {
  g.addEventListener('click', () => look(...at(g)));
  g.addEventListener('mouseover', () => { told.textContent = g.children[0].textContent; });
}
";

#[cfg(test)]
mod tests {
    use super::*;

    fn stacks() -> BTreeMap<Vec<String>, u64> {
        let stack = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        [(stack(&["EL1", "a", "b<c>"]), 3), (stack(&["EL1", "a"]), 1)].into()
    }

    #[test]
    fn widths_are_shares_and_names_are_escaped() {
        let svg = draw(&stacks(), "a & b");
        assert!(svg.contains(">a &amp; b</text>"));
        assert!(svg.contains("<title>b&lt;c&gt;: 3 samples, 75.00 %</title>"), "{svg}");
        assert!(svg.contains("data-w=\"885.00\""), "{svg}");
        assert_eq!(svg.matches("<g class=\"f\"").count(), 4);
    }

    #[test]
    fn an_empty_profile_is_a_picture_too() {
        assert!(draw(&BTreeMap::new(), "nothing").ends_with("</svg>\n"));
    }
}
