"""The page that shows what was kept, learned and written. Called, the package is its stage: `lorakit.report(project)`."""

from lorakit.lookup import make_callable

make_callable(__name__)
