"""The page's style sheet: light and dark, screen and paper, no fonts or images from elsewhere."""

CSS = """
:root {
  color-scheme: light dark;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
  --bg: #f7f7f5; --surface: #ffffff; --text: #1b1d1f; --muted: #666c72; --rule: #e3e4e1; --track: #ecedea;
  --before: #b4bac0; --accent: #2460c8; --second: #b8560f; --third: #7a4cc2; --fourth: #12776a;
  --good: #17784a; --bad: #b23a20; --neutral: #6b7177; --note-bg: #fdf5e2; --note-rule: #dfb653; --code: #f2f3f0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --bg: #121315; --surface: #1a1c1f; --text: #e7e8e9; --muted: #9ba1a7; --rule: #2b2e32; --track: #292c30;
    --before: #656c73; --accent: #79a5f7; --second: #eda168; --third: #b998f0; --fourth: #5cc7b6;
    --good: #5cc890; --bad: #f58d74; --neutral: #9ba1a7; --note-bg: #2a2415; --note-rule: #8a6f2a; --code: #212427;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--bg); color: var(--text);
  font: 16px/1.55 var(--sans);
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%;
}
main { max-width: 1000px; margin: 0 auto; padding: 56px 28px 72px; }
h1, h2, h3, p, dl, figure { margin: 0; }
h3 { font-size: 16px; font-weight: 640; margin-top: 18px; }
h3 + .lead { margin-top: 4px; }
.overline { color: var(--muted); font-size: 13px; font-weight: 600; letter-spacing: .07em;
  text-transform: uppercase; }
h1 { font-size: 34px; line-height: 1.2; font-weight: 680; letter-spacing: -.02em; margin-top: 6px;
  overflow-wrap: anywhere; }
.sub { color: var(--muted); margin-top: 6px; }
.verdict { margin-top: 28px; padding: 22px 26px; background: var(--surface); border: 1px solid var(--rule);
  border-left: 5px solid var(--tone); border-radius: 8px; }
.verdict strong { display: block; font-size: 24px; line-height: 1.3; font-weight: 660; letter-spacing: -.012em; }
.verdict p { color: var(--muted); margin-top: 4px; }
.good { --tone: var(--good); } .bad { --tone: var(--bad); } .neutral { --tone: var(--neutral); }
.notes { margin: 14px 0 0; padding: 0; list-style: none; }
.notes li { padding: 11px 16px; margin-top: 8px; background: var(--note-bg); border: 1px solid var(--note-rule);
  border-radius: 8px; font-size: 15px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 14px; margin-top: 14px; }
.card { background: var(--surface); border: 1px solid var(--rule); border-radius: 8px; padding: 16px 18px; }
.card .label { color: var(--muted); font-size: 14px; }
.card .value { font-size: 27px; line-height: 1.3; font-weight: 660; letter-spacing: -.02em; white-space: nowrap; }
.card .from { color: var(--muted); font-size: 14px; }
section { margin-top: 50px; }
h2 { font-size: 20px; font-weight: 660; letter-spacing: -.01em; padding-bottom: 9px;
  border-bottom: 1px solid var(--rule); }
.lead { color: var(--muted); margin: 12px 0 0; max-width: 74ch; font-size: 15px; }
/* Wide tables scroll, and a shade says on which side there is more. */
.wrap { overflow-x: auto; --ground: var(--under, var(--bg)); background:
  linear-gradient(to right, var(--ground) 40%, transparent) left / 40px 100% no-repeat local,
  linear-gradient(to left, var(--ground) 40%, transparent) right / 40px 100% no-repeat local,
  linear-gradient(to right, var(--before), transparent) left / 9px 100% no-repeat,
  linear-gradient(to left, var(--before), transparent) right / 9px 100% no-repeat; }
table { width: 100%; border-collapse: collapse; margin-top: 12px; font-size: 15px; }
th { color: var(--muted); font-weight: 500; font-size: 13.5px; text-align: left; padding: 7px 14px 7px 0;
  white-space: nowrap; }
td { padding: 8px 14px 8px 0; border-top: 1px solid var(--rule); vertical-align: middle; }
th.n, td.n { text-align: right; white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
td.w { width: 34%; min-width: 150px; }
table.dense td { padding-top: 3px; padding-bottom: 3px; font-size: 14px; }
code, .mono { font-family: var(--mono); font-size: .9em; overflow-wrap: anywhere; }
pre { margin: 12px 0 0; padding: 16px 18px; background: var(--code); border: 1px solid var(--rule);
  border-radius: 8px;
  overflow-x: auto; font-size: 14px; line-height: 1.6; }
pre code { font-size: 1em; overflow-wrap: normal; }
.mark { font-weight: 600; } .mark.good { color: var(--good); } .mark.bad { color: var(--bad); }
.muted { color: var(--muted); } a { color: var(--accent); }
svg { display: block; width: 100%; height: auto; }
svg.bar { height: 12px; border-radius: 3px; }
svg.thin { height: 9px; border-radius: 2px; }
svg text { fill: var(--muted); font: 13px var(--sans); }
svg text.strong { fill: var(--text); font-weight: 600; }
figure { margin-top: 16px; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 22px; margin-top: 12px; color: var(--muted); font-size: 14px; }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 8px;
  vertical-align: -1px; }
.legend i.dash { height: 0; width: 20px; border-top: 2px dashed; border-radius: 0; vertical-align: 4px;
  background: none !important; }
.legend i.key-before { background: var(--before); color: var(--before); }
.legend i.key-accent { background: var(--accent); color: var(--accent); }
.legend i.key-second { background: var(--second); color: var(--second); }
.legend i.key-third { background: var(--third); color: var(--third); }
.legend i.key-fourth { background: var(--fourth); color: var(--fourth); }
.legend i.key-good { background: var(--good); color: var(--good); }
.legend i.key-bad { background: var(--bad); color: var(--bad); }
.legend i.key-neutral { background: var(--neutral); color: var(--neutral); }
.notation { margin-top: 14px; line-height: 2; font-size: 17px; }
.notation span { white-space: nowrap; margin-right: 10px; } .notation sub { font-size: 13px; color: var(--accent); }
.multiples { display: grid; gap: 20px 16px; margin-top: 18px; align-items: start; }
.multiples.tiles { grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); }
.multiples.strips { grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); }
.multiples.charts { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
.multiples.strips svg { max-width: 320px; }
.multiples figure { margin: 0; min-width: 0; }
figcaption { font-size: 13px; line-height: 1.4; margin-top: 5px; color: var(--muted); }
figcaption > * { display: block; } figcaption code { font-size: 12px; }
b { font-weight: 600; color: var(--text); } b.changed { color: var(--accent); } .likelier { color: var(--second); }
details { margin-top: 14px; } details.flush { margin: 0; }
summary { cursor: pointer; color: var(--accent); font-size: 15px; width: fit-content; }
.facts { display: grid; grid-template-columns: minmax(120px, 190px) 1fr; gap: 7px 20px; margin-top: 14px;
  font-size: 15px; }
.facts dt { color: var(--muted); } .facts dd { margin: 0; overflow-wrap: anywhere; }
footer { margin-top: 56px; padding-top: 14px; border-top: 1px solid var(--rule); color: var(--muted);
  font-size: 13.5px; }
@media (max-width: 640px) {
  main { padding: 32px 18px 48px; } .cards { grid-template-columns: 1fr 1fr; }
  h1 { font-size: 27px; } .verdict strong { font-size: 20px; }
  td code { overflow-wrap: break-word; } td { padding-right: 10px; }
  td.w { min-width: 70px; } td:last-child:not(.n) { min-width: 9em; }
  figure { overflow-x: auto; } figure svg { min-width: 640px; } .multiples svg { min-width: 0; }
  .facts { grid-template-columns: 1fr; gap: 0; } .facts dd { margin-bottom: 8px; }
}
@media print {
  :root { --bg: #fff; } main { max-width: none; padding: 0; } .wrap { background: none; }
  section, .verdict, .card { break-inside: avoid; }
  body { font-size: 11pt; }
}
"""
