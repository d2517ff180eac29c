//! A chart of pairs of bars on a logarithmic axis, as SVG that can be read on light and on dark pages.

use std::fmt;

use super::operations::time;

const STYLE: &str = "
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 14px }
.value { font-size: 10px; fill: #59636e }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.s0 { fill: #9aa4ae }
.s1 { fill: #0a7d5a }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .value { fill: #9198a1 }
  .grid { stroke: #3d444d }
  .s0 { fill: #656c76 }
  .s1 { fill: #3fb98b }
}
";
const WIDTH: f64 = 860.0;
/// Where bars begin and may end.
const LEFT: f64 = 250.0;
const RIGHT: f64 = 740.0;
/// Above the first bar, and from each pair to the next.
const TOP: f64 = 74.0;
const STEP: f64 = 28.0;
const THICKNESS: f64 = 10.0;

/// Two values of the same thing.
pub struct Bar<'a> {
    /// What it is.
    pub name: &'a str,
    /// One for each series, greater than zero.
    pub values: [f64; 2],
}

/// A chart.
pub struct Chart<'a> {
    /// Stands above it.
    pub title: &'a str,
    /// Names of the series.
    pub series: [&'a str; 2],
    /// From the top down.
    pub bars: Vec<Bar<'a>>,
}

impl Chart<'_> {
    /// The decades that all values lie in.
    fn decades(&self) -> (i32, i32) {
        let all = || self.bars.iter().flat_map(|b| b.values).filter(|v| *v > 0.0).map(f64::log10);
        let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(f64::MIN, f64::max));
        if low > high {
            return (0, 1);
        }
        let low = low.floor() as i32;
        (low, (high.ceil() as i32).max(low + 1))
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl fmt::Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = self.decades();
        let bottom = TOP + STEP * self.bars.len() as f64;
        let height = bottom + 30.0;
        let x = |v: f64| {
            let share = (v.max(f64::MIN_POSITIVE).log10() - f64::from(low)) / f64::from(high - low);
            LEFT + (RIGHT - LEFT) * share.clamp(0.0, 1.0)
        };
        let title = escaped(self.title);
        writeln!(
            f,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="{title}">"#
        )?;
        writeln!(f, "<style>{STYLE}</style>")?;
        writeln!(f, r#"<text class="title" x="16" y="26">{title}</text>"#)?;
        for (i, name) in self.series.iter().enumerate() {
            let at = LEFT + 110.0 * i as f64;
            writeln!(f, r#"<rect class="s{i}" x="{at}" y="40" width="12" height="12" rx="2"/>"#)?;
            writeln!(f, r#"<text x="{}" y="50">{}</text>"#, at + 18.0, escaped(name))?;
        }
        for decade in low..=high {
            let (at, value) = (x(10f64.powi(decade)), time(10f64.powi(decade)));
            writeln!(
                f,
                r#"<line class="grid" x1="{at:.1}" x2="{at:.1}" y1="{}" y2="{bottom}"/>"#,
                TOP - 8.0
            )?;
            writeln!(
                f,
                r#"<text class="value" x="{at:.1}" y="{}" text-anchor="middle">{value}</text>"#,
                bottom + 16.0
            )?;
        }
        for (i, bar) in self.bars.iter().enumerate() {
            let y = TOP + STEP * i as f64;
            writeln!(
                f,
                r#"<text x="{}" y="{}" text-anchor="end">{}</text>"#,
                LEFT - 10.0,
                y + 14.0,
                escaped(bar.name)
            )?;
            for (s, value) in bar.values.iter().enumerate() {
                let (top, end) = (y + (THICKNESS + 1.0) * s as f64, x(*value));
                writeln!(
                    f,
                    r#"<rect class="s{s}" x="{LEFT}" y="{top}" width="{:.1}" height="{THICKNESS}" rx="2"/>"#,
                    (end - LEFT).max(1.0)
                )?;
                writeln!(
                    f,
                    r#"<text class="value" x="{:.1}" y="{}">{}</text>"#,
                    end.max(LEFT + 1.0) + 5.0,
                    top + 9.0,
                    time(*value)
                )?;
            }
            let ratio = bar.values[0] / bar.values[1];
            writeln!(
                f,
                r#"<text x="{}" y="{}" text-anchor="end">{ratio:.1} ×</text>"#,
                WIDTH - 16.0,
                y + 14.0
            )?;
        }
        writeln!(f, "</svg>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[[f64; 2]]) -> String {
        let bars = values.iter().map(|v| Bar { name: "a < b & c", values: *v }).collect();
        Chart { title: "T", series: ["one", "two"], bars }.to_string()
    }

    #[test]
    fn a_chart_has_its_bars_its_axis_and_no_markup_from_names() {
        let text = chart(&[[2.0, 1.0], [500.0, 40.0]]);
        assert_eq!(text.matches("<rect").count(), 2 + 4);
        assert_eq!(text.matches("<line").count(), 4, "1, 10, 100, 1000");
        assert!(text.contains("a &lt; b &amp; c") && !text.contains("a < b"));
        assert!(text.contains(">2.0 ×<") && text.contains(">12.5 ×<"));
        assert_eq!(text.matches("<svg").count(), text.matches("</svg>").count());
    }

    #[test]
    fn odd_values_do_no_harm() {
        for values in [&[][..], &[[1.0, 1.0]], &[[0.0, 1.0]], &[[1e-3, 1e9]]] {
            assert!(!chart(values).contains("NaN\"") && !chart(values).contains("x=\"inf"));
        }
    }
}
