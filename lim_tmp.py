from playwright.sync_api import sync_playwright
from benchmarks.pages import *
with sync_playwright() as p, chromium(p) as b, Site() as s:
    page=b.new_page(); page.goto(s.url+"/web/tensors.js")
    for t in (1,2):
        for n in ("fma","copy"):
            print(t,n,page.evaluate("async ([t,n]) => (await import('/web/limits.js')).measured(t,n,1000)",[t,n])/1e9)
