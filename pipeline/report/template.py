"""The frame of the report page: one file, no network, no script; prints well and scrolls wide tables on a phone."""

from __future__ import annotations

from pipeline.report.html import ENVIRONMENT

PAGE = ENVIRONMENT.from_string("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light; --ink: #111827; --soft: #4b5563; --line: #e5e7eb; --wash: #f8fafc; }
:root { --up: #047857; --down: #b91c1c; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1300px; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .6rem; padding-top: 1.1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .4rem; }
p, li { max-width: 80ch; }
p { margin: .5rem 0 .9rem; }
.soft, figcaption, .note { color: var(--soft); font-size: .9rem; }
.brief { background: var(--wash); border: 1px solid var(--line); border-radius: 8px; padding: .9rem 1.2rem; margin: 1.2rem 0; }
.brief h2 { border: 0; margin: 0 0 .3rem; padding: 0; font-size: 1.05rem; }
.brief ul { margin: .2rem 0; padding-left: 1.2rem; }
nav { font-size: .92rem; color: var(--soft); margin: .6rem 0; }
nav a { margin-right: 1rem; white-space: nowrap; }
a { color: #0b5cad; }
code { font: .9em ui-monospace, "DejaVu Sans Mono", monospace; background: #f1f5f9; padding: .05em .3em; border-radius: 3px; }
.wide { overflow-x: auto; margin: .6rem 0 .9rem; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .75rem .32rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid #9ca3af; font-weight: 600; vertical-align: bottom; }
thead th small { display: block; font-weight: 400; color: var(--soft); }
th.n { max-width: 13rem; }
thead th:not(.n) { white-space: nowrap; }
td { max-width: 24rem; }
td.n { white-space: nowrap; }
td.n, th.n { text-align: right; padding-left: .6rem; padding-right: 0; }
tr.first td { border-top: 1.5px solid #cbd5e1; }
td small { color: var(--soft); }
td .d { display: block; font-size: .78rem; color: var(--soft); }
td .up { color: var(--up); font-weight: 600; } td .down { color: var(--down); font-weight: 600; }
.right { color: var(--up); }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .4em; }
figure { margin: .8rem 0 1.4rem; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { margin-top: .35rem; max-width: 90ch; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; font-size: .93rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media print { main { max-width: none; padding: 0; } figure, tr { break-inside: avoid; } }
</style>
</head>
<body>
<main>
<h1>{{ title }}</h1><p class="soft">{{ subtitle }}</p>
{%- if brief %}<div class="brief"><h2>In brief</h2>{{ pieces.bullets(brief) }}</div>{% endif +%}
<nav>{% for anchor, name in sections %}<a href="#{{ anchor }}">{{ name }}</a>{% endfor %}</nav>
{{ parts | join("\n") }}
</main>
</body>
</html>
""")
