"""From numbers to charts, pictures and the page that shows them."""
